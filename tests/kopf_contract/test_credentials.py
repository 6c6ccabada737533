"""When kopf asks for credentials again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import repeat

import kopf

from tests.kopf_contract.conftest import TASKS, Scene
from tests.kopf_contract.operators import kinds, quick_settings


def _in(**time: float) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(**time)


async def test_new_credentials_are_asked_for_when_the_old_ones_are_refused(scene: Scene) -> None:
    """`main.watch`, login: a service account's token is read anew after it has run out."""
    scene.server.create(TASKS, "mend")
    async with scene.operator(tokens=iter(["first", "second"])) as operator:
        await scene.watching()
        await scene.watching("pods")
        scene.server.tokens = {"second"}
        scene.server.fall_silent()
        scene.server.change(TASKS, "mend", spec={"cancel": True})
        scene.create_pod("sandbox")
        scene.server.end_watches()
        await scene.ears.heard("mend", "MODIFIED")
        await scene.ears.heard("sandbox", "ADDED")
        assert operator.logins == 2
    assert kinds(scene.ears.tasks) == [(None, "mend"), ("MODIFIED", "mend")]


async def test_credentials_that_were_refused_once_are_not_tried_again(scene: Scene) -> None:
    """`main.main`: one 401 for a token that is still the newest ends the process with an error."""
    async with scene.operator(tokens=iter(["first", "first"])) as operator:
        await scene.watching()
        await scene.watching("pods")
        scene.server.fail("watch", TASKS, 401, times=1)
        scene.server.end_watches(plural=TASKS)
        assert isinstance(await operator.end(), kopf.LoginError)
    assert operator.logins == 2


async def test_new_credentials_break_the_watches_that_are_open_and_lose_nothing(
    scene: Scene,
) -> None:
    """The login of our operator: kopf closes all that the old credentials had opened.

    A watch that was answered in the same moment, and reads nothing yet, ends the operator then
    (RuntimeError of aiohttp, seen at every other try where both watches ended at once).
    """
    scene.create_pod("sandbox")
    async with scene.operator(tokens=iter(["first", "second"])) as operator:
        await scene.watching()
        await scene.watching("pods")
        scene.server.tokens = {"second"}
        scene.server.end_watches(plural=TASKS)
        await scene.server.bell.until(lambda: scene.server.count("watch", "pods") == 2)
        scene.server.change("pods", "sandbox", status={"phase": "Running"})
        await scene.ears.heard("sandbox", "MODIFIED")
        assert not operator.ended.done()
    assert scene.server.count("list", "pods") == 1


async def test_the_same_credentials_are_taken_if_their_expiry_is_another(scene: Scene) -> None:
    """The login of our operator: a refusal that was the API server's mistake ends nothing."""
    scene.server.create(TASKS, "mend")
    async with scene.operator(tokens=repeat("first"), expires=_in(hours=1)) as operator:
        await scene.watching()
        await scene.watching("pods")
        scene.server.fail("watch", TASKS, 401, times=1)
        scene.server.end_watches(plural=TASKS)
        await scene.server.bell.until(lambda: scene.server.count("watch", TASKS) == 3)
        scene.server.change(TASKS, "mend", spec={"cancel": True})
        await scene.ears.heard("mend", "MODIFIED")
        assert operator.logins == 2


async def test_credentials_that_ran_out_are_asked_for_before_they_are_used(scene: Scene) -> None:
    """The login of our operator: a token that the kubelet wrote anew is used without a refusal."""
    settings = quick_settings()
    settings.watching.inactivity_timeout = 0.1
    options = {"tokens": repeat("first"), "expires": _in(seconds=1), "settings": settings}
    async with scene.operator(**options) as operator:
        await scene.server.bell.until(lambda: operator.logins >= 2)
        scene.server.create(TASKS, "mend")
        await scene.ears.heard("mend", "ADDED")
        assert not operator.ended.done()


async def test_a_login_that_fails_is_tried_again(scene: Scene) -> None:
    """`watching.Login`: a token that cannot be read for a moment holds up, and ends nothing."""

    failures = [OSError("the file is being written"), OSError("it still is")]

    def expires() -> None:
        if failures:
            raise failures.pop()

    async with scene.operator(tokens=repeat("first"), expires=expires) as operator:
        await scene.watching()
        assert operator.logins == 3
