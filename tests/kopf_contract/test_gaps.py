"""What kopf makes of a watch that ends, breaks, falls silent or has lost its place."""

from __future__ import annotations

import json

import kopf
import pytest

from tests.kopf_contract.api_shapes import status
from tests.kopf_contract.conftest import TASKS, Scene
from tests.kopf_contract.operators import quick_settings


async def test_after_a_lost_place_all_is_listed_and_told_again(scene: Scene) -> None:
    """`supervisor.task_seen` must take the same state twice: 410 in the stream means a new list."""
    scene.server.create(TASKS, "stays")
    async with scene.operator():
        await scene.watching()
        scene.server.fall_silent()
        scene.server.create(TASKS, "comes")
        scene.server.forget_history()
        scene.server.end_watches()
        await scene.ears.heard("comes", None)
        await scene.ears.heard("stays", None, times=2)
    assert scene.server.count("list", TASKS) == 2


async def test_objects_that_vanish_where_the_place_is_lost_are_never_told_as_deleted(
    scene: Scene,
) -> None:
    """`supervisor`: a loop must find out by its own reads that its task is gone."""
    first = scene.server.create(TASKS, "again")
    scene.server.create(TASKS, "gone")
    async with scene.operator():
        await scene.watching()
        scene.server.fall_silent()
        scene.server.delete(TASKS, "gone")
        scene.server.delete(TASKS, "again")
        second = scene.server.create(TASKS, "again")
        scene.server.forget_history()
        scene.server.end_watches()
        await scene.ears.heard("again", None, times=2)
        await scene.watching()
        scene.server.create(TASKS, "later")
        await scene.ears.heard("later", "ADDED")
    assert "DELETED" not in {told.kind for told in scene.ears.tasks}
    uids = [told.body["metadata"]["uid"] for told in scene.ears.tasks if told.name == "again"]
    assert uids == [first["metadata"]["uid"], second["metadata"]["uid"]]


@pytest.mark.parametrize("how", ["end_watches", "break_off"])
async def test_a_closed_watch_goes_on_where_it_was_without_a_list(scene: Scene, how: str) -> None:
    """`supervisor`: API servers end each watch after some minutes; nothing is lost or repeated."""
    scene.server.create(TASKS, "mend")
    async with scene.operator():
        await scene.watching()
        scene.server.change(TASKS, "mend", spec={"cancel": False})
        await scene.ears.heard("mend", "MODIFIED")
        scene.server.fall_silent()
        scene.server.change(TASKS, "mend", spec={"cancel": True})
        scene.server.delete(TASKS, "mend")
        getattr(scene.server, how)()
        await scene.ears.heard("mend", "DELETED")
    assert [told.kind for told in scene.ears.tasks] == [None, "MODIFIED", "MODIFIED", "DELETED"]
    assert scene.server.count("list", TASKS) == 1


async def test_a_bookmark_moves_the_place_and_is_told_to_nobody(scene: Scene) -> None:
    """`freshness`: only events of tasks count as heard; a quiet watch still keeps its place."""
    async with scene.operator():
        await scene.watching()
        place = scene.server.send_bookmark(TASKS)
        scene.server.end_watches()
        asked = scene.server.asked
        await scene.server.bell.until(lambda: scene.server.count("watch", TASKS) == 2)
        assert [a for a in asked if a.plural == TASKS][-1].query["resourceVersion"] == place
    assert scene.ears.tasks == []


async def test_a_silent_watch_is_opened_again_after_the_inactivity_timeout(scene: Scene) -> None:
    """`freshness.LATEST_S`: a dead connection looks like a quiet one, and is not found otherwise."""
    settings = quick_settings()
    settings.watching.inactivity_timeout = 0.2
    async with scene.operator(settings=settings):
        await scene.watching()
        scene.server.fall_silent()
        scene.server.create(TASKS, "mend")
        await scene.ears.heard("mend", "ADDED")
    assert scene.server.count("list", TASKS) == 1


async def test_a_silent_watch_is_given_up_after_70_seconds() -> None:
    """`main.kopf_settings` leaves that to kopf.

    API servers send a bookmark each minute, but none of a resource without any change since the
    list: such a watch is opened anew every 70 seconds.
    """
    assert kopf.OperatorSettings().watching.inactivity_timeout == 70


async def test_an_event_that_is_broken_off_is_told_whole_afterwards(scene: Scene) -> None:
    """`handlers`: a connection that is reset within an event costs nothing."""
    async with scene.operator():
        await scene.watching()
        for stream in scene.server.watches(TASKS):
            stream.queue.put_nowait(b'{"type": "ADD')
        scene.server.fall_silent()
        scene.server.create(TASKS, "mend")
        scene.server.break_off()
        await scene.ears.heard("mend", "ADDED")


async def test_half_an_event_before_a_regular_end_ends_the_operator(scene: Scene) -> None:
    """`main.main`: the process ends with an error then, and Kubernetes begins another."""
    async with scene.operator() as operator:
        await scene.watching()
        scene.server.end_watches(b'{"type": "ADD')
        assert isinstance(await operator.end(), json.JSONDecodeError)


@pytest.mark.parametrize("code", [500, 504])
async def test_another_error_in_the_stream_ends_the_operator(scene: Scene, code: int) -> None:
    """`main.main`: the process ends with an error then, and Kubernetes begins another."""
    async with scene.operator() as operator:
        await scene.watching()
        scene.server.send(TASKS, {"type": "ERROR", "object": status(code, "InternalError")})
        raised = await operator.end()
    assert type(raised).__name__ == "WatchingError"


async def test_a_place_that_is_refused_before_the_stream_ends_the_operator(scene: Scene) -> None:
    """`main.main`: only a 410 within the stream is a lost place to kopf, not one of the request."""
    async with scene.operator() as operator:
        await scene.watching()
        scene.server.fail("watch", TASKS, 410)
        scene.server.end_watches()
        raised = await operator.end()
    assert getattr(raised, "status", None) == 410
