"""What kopf makes of an API server that answers with errors, or not at all."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientConnectionError
from ratchet.shell.handlers import WATCH_TASKS
from ratchet.shell.main import API_OUTAGE_BACKOFFS_S, kopf_settings

from tests.kopf_contract.conftest import TASKS, Scene
from tests.kopf_contract.noting import Noting
from tests.kopf_contract.operators import BACKOFFS_S, quick_settings

TRIES = len(BACKOFFS_S) + 1
"""Of one request, until kopf gives it up."""


@pytest.mark.parametrize("code", [0, 403, 429, 500, 503])
@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_short_outage_is_waited_out(scene: Scene, verb: str, code: int) -> None:
    """`main.API_OUTAGE_BACKOFFS_S`: requests that fail or are refused are tried again."""
    scene.server.create(TASKS, "mend")
    scene.server.fail(verb, TASKS, code, times=TRIES - 1)
    async with scene.operator():
        await scene.watching()
        await scene.ears.heard("mend", None)
        scene.server.change(TASKS, "mend", spec={"cancel": True})
        await scene.ears.heard("mend", "MODIFIED")
    assert scene.server.count(verb, TASKS) == TRIES


@pytest.mark.parametrize("code", [403, 500, 503])
@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_errors_for_longer_than_all_backoffs_end_the_operator(
    scene: Scene, verb: str, code: int
) -> None:
    """`main.API_OUTAGE_BACKOFFS_S`: the process ends with an error after its last try."""
    scene.server.fail(verb, TASKS, code)
    async with scene.operator() as operator:
        raised = await operator.end()
    assert getattr(raised, "status", None) == code
    assert scene.server.count(verb, TASKS) == TRIES


@pytest.mark.parametrize("code", [400, 404])
async def test_a_resource_that_is_not_served_any_more_ends_the_operator_at_once(
    scene: Scene, code: int
) -> None:
    """`main.main`: a CRD that is deleted under a running operator ends the process."""
    async with scene.operator() as operator:
        await scene.watching()
        scene.server.fail("watch", TASKS, code)
        scene.server.end_watches()
        raised = await operator.end()
    assert getattr(raised, "status", None) == code
    assert scene.server.count("watch", TASKS) == 2


@pytest.mark.parametrize("code", [0, 429])
@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_no_connection_and_too_many_requests_are_tried_for_ever(
    scene: Scene, verb: str, code: int
) -> None:
    """`main.API_OUTAGE_BACKOFFS_S` bounds no such outage: the operator goes on after any time."""
    scene.server.create(TASKS, "mend")
    fault = scene.server.fail(verb, TASKS, code)
    async with scene.operator() as operator:
        await scene.server.bell.until(lambda: scene.server.count(verb, TASKS) > 3 * TRIES)
        assert not operator.ended.done()
        scene.server.faults.remove(fault)
        await scene.watching()
        await scene.ears.heard("mend", None)


async def test_a_server_that_was_down_for_long_is_watched_again(scene: Scene) -> None:
    """`architecture.md`, the process: an outage is waited out, and nothing of it is missed."""
    async with scene.operator() as operator:
        await scene.watching()
        await scene.server.stop()
        scene.server.create(TASKS, "mend")
        await scene.server.start()
        await scene.ears.heard("mend", "ADDED")
        assert not operator.ended.done()
    assert scene.server.count("list", TASKS) == 1


async def test_tries_that_are_longer_than_the_inactivity_timeout_have_no_end(scene: Scene) -> None:
    """`main.API_OUTAGE_BACKOFFS_S`: a watch that gets errors is begun anew, and never given up.

    kopf's timer of silence runs while it waits for its next try, so the last try is never reached.
    """
    settings = quick_settings()
    settings.networking.error_backoffs = (0.02,) * 100
    settings.watching.inactivity_timeout = 0.1
    async with scene.operator(settings=settings) as operator:
        await scene.watching()
        fault = scene.server.fail("watch", TASKS, 503)
        scene.server.end_watches()
        await scene.server.bell.until(lambda: scene.server.count("watch", TASKS) > 110)
        assert not operator.ended.done()
        scene.server.faults.remove(fault)
        scene.server.create(TASKS, "mend")
        await scene.ears.heard("mend", "ADDED")


async def test_so_are_those_of_our_operator() -> None:
    """`main.API_OUTAGE_BACKOFFS_S` is six minutes and more; what silence is, is left to kopf."""
    settings = kopf_settings()
    assert settings.networking.error_backoffs == API_OUTAGE_BACKOFFS_S
    assert sum(API_OUTAGE_BACKOFFS_S) > 360 > settings.watching.inactivity_timeout


async def test_an_operator_that_cannot_see_what_is_served_ends(scene: Scene) -> None:
    """`main.main`: at its start an outage that is longer than all backoffs ends the process."""
    await scene.server.stop()
    async with scene.operator() as operator:
        raised = await operator.end()
    assert isinstance(raised, ClientConnectionError)


async def test_a_watch_goes_on_while_another_is_tried_again(scene: Scene) -> None:
    """`handlers.pod_event` is told of pods while tasks cannot be listed."""
    settings = quick_settings()
    settings.networking.error_backoffs = (0.02,) * 1000
    scene.server.fail("list", TASKS, 503)
    async with scene.operator(settings=settings):
        await scene.watching("pods")
        scene.create_pod("sandbox")
        await scene.ears.heard("sandbox", "ADDED")
        scene.server.change("pods", "sandbox", status={"phase": "Running"})
        await scene.ears.heard("sandbox", "MODIFIED")
    assert scene.ears.tasks == []


async def test_a_watch_that_is_given_up_ends_the_operator_and_leaves_the_others(
    scene: Scene,
) -> None:
    """`handlers.end_watches`: no process is left that watches half of what it should.

    kopf's root task ends with the error, but a watch of another resource goes on beside it.
    """
    async with scene.operator(register=Noting(scene.server.bell).register) as operator:
        await scene.watching()
        await scene.watching("pods")
        scene.server.fail("watch", "pods", 500)
        scene.server.end_watches(plural="pods")
        assert getattr(await operator.end(), "status", None) == 500
        assert _watches() == {"watcher for agenttasks.v1alpha1.ratchet.run@None"}
    assert _watches() == set()
    await scene.watching(times=0)


def _watches() -> set[str]:
    names_ = {task.get_name() for task in asyncio.all_tasks()}
    return {name for name in names_ if name.startswith(WATCH_TASKS)}
