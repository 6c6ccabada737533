"""What handlers of `on.event` are told of objects, and what kopf does to these: nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
import pytest
from ratchet.api import names

from tests.kopf_contract.conftest import TASKS, Scene
from tests.kopf_contract.operators import kinds, quick_settings

READS = {"discovery", "list", "watch"}
MARK = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
KOPFS_FINALIZER = kopf.OperatorSettings().persistence.finalizer


async def _a_life(scene: Scene) -> None:
    """One task is there and one begins, is changed, marked and gone."""
    scene.server.create(TASKS, "old", metadata={"finalizers": [KOPFS_FINALIZER]})
    async with scene.operator():
        await scene.ears.heard("old", None)
        scene.server.create(TASKS, "new")
        await scene.ears.heard("new", "ADDED")
        scene.server.change(TASKS, "new", spec={"cancel": True})
        await scene.ears.heard("new", "MODIFIED")
        finalizers = ["example.com/another", KOPFS_FINALIZER]
        scene.server.change(TASKS, "new", metadata={**MARK, "finalizers": finalizers})
        await scene.ears.heard("new", "MODIFIED", times=2)
        scene.server.delete(TASKS, "new")
        await scene.ears.heard("new", "DELETED")


async def test_what_happens_to_an_object_is_told_by_its_kind_with_its_body(scene: Scene) -> None:
    """`handlers.task_seen`: None when listed, else ADDED, MODIFIED or DELETED, and the new body."""
    await _a_life(scene)
    assert kinds(scene.ears.tasks) == [
        (None, "old"),
        ("ADDED", "new"),
        ("MODIFIED", "new"),
        ("MODIFIED", "new"),
        ("DELETED", "new"),
    ]
    assert scene.ears.tasks[2].body["spec"] == {"cancel": True}
    assert "deletionTimestamp" not in scene.ears.tasks[2].body["metadata"]


async def test_an_object_that_is_marked_for_deletion_is_told_as_modified(scene: Scene) -> None:
    """`handlers.task_seen`, `pod_seen`: gone is DELETED or a deletionTimestamp in any event."""
    await _a_life(scene)
    marked = [told for told in scene.ears.tasks if "deletionTimestamp" in told.body["metadata"]]
    assert kinds(marked) == [("MODIFIED", "new"), ("DELETED", "new")]


async def test_nothing_is_written_to_objects_nor_events_posted(scene: Scene) -> None:
    """`handlers`: no finalizers and no annotations, so that an uninstalled operator leaves none."""
    await _a_life(scene)
    assert {asked.verb for asked in scene.server.asked} == READS


async def test_a_finalizer_of_the_set_name_would_be_taken_away(scene: Scene) -> None:
    """`main.kopf_settings`: the name of our own keeps kopf off other kopf operators' finalizers."""
    settings = quick_settings()
    settings.persistence.finalizer = KOPFS_FINALIZER
    scene.server.create(TASKS, "old", metadata={"finalizers": [KOPFS_FINALIZER]})
    async with scene.operator(settings=settings):
        await scene.server.bell.until(lambda: "PATCH" in {a.verb for a in scene.server.asked})


async def test_a_handler_that_returns_something_has_it_written(scene: Scene) -> None:
    """`handlers.register`: ours return nothing, since a result would go into the task's status."""

    def register(registry: kopf.OperatorRegistry) -> None:
        @kopf.on.event(names.GROUP, names.VERSION, TASKS, registry=registry)
        async def task_event(**_: Any) -> str:
            return "told"

    scene.server.create(TASKS, "old")
    async with scene.operator(register=register):
        await scene.server.bell.until(lambda: "PATCH" in {a.verb for a in scene.server.asked})


async def test_after_a_restart_all_objects_are_told_again(scene: Scene) -> None:
    """`supervisor`: a new process finds its tasks by the list, and needs no memory of its own."""
    for name in ("one", "two"):
        scene.server.create(TASKS, name)
    for _ in range(2):
        scene.ears.tasks.clear()
        async with scene.operator():
            await scene.watching()
            await scene.ears.heard("two")
        assert sorted(kinds(scene.ears.tasks)) == [(None, "one"), (None, "two")]


class SlowAt:
    """Handlers that stay in their first event of one object until they are let go."""

    def __init__(self, scene: Scene, name: str) -> None:
        self._ears, self._name = scene.ears, name
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    def register(self, registry: kopf.OperatorRegistry) -> None:
        @kopf.on.event(names.GROUP, names.VERSION, TASKS, registry=registry)
        async def task_event(event: Any, body: Any, **_: Any) -> None:
            if body["metadata"]["name"] == self._name and not self.begun.is_set():
                self.begun.set()
                await self.go.wait()
            self._ears.note(self._ears.tasks, event, body)


async def test_a_slow_handler_loses_no_event_and_keeps_their_order(scene: Scene) -> None:
    """`handlers`: what is told is in order and whole, intermediate states too (no batching)."""
    slow = SlowAt(scene, "mend")
    async with scene.operator(register=slow.register):
        await scene.watching()
        versions = [scene.server.create(TASKS, "mend")["metadata"]["resourceVersion"]]
        await slow.begun.wait()
        for number in range(20):
            changed = scene.server.change(TASKS, "mend", spec={"number": number})
            versions.append(changed["metadata"]["resourceVersion"])
        slow.go.set()
        await scene.ears.heard("mend", times=21)
    assert [told.version for told in scene.ears.tasks] == versions


async def test_a_slow_handler_holds_up_no_other_object(scene: Scene) -> None:
    """`handlers`: each object has a queue of its own."""
    slow = SlowAt(scene, "mend")
    async with scene.operator(register=slow.register):
        await scene.watching()
        scene.server.create(TASKS, "mend")
        await slow.begun.wait()
        scene.server.create(TASKS, "other")
        await scene.ears.heard("other")
        assert kinds(scene.ears.tasks) == [("ADDED", "other")]
        slow.go.set()


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), kopf.PermanentError("no"), kopf.TemporaryError("later")]
)
async def test_a_handler_that_raises_ends_nothing_and_is_not_called_again(
    scene: Scene, error: Exception
) -> None:
    """`handlers.task_seen` may meet an object that it cannot read: the next events must come."""
    calls = []

    def register(registry: kopf.OperatorRegistry) -> None:
        scene.ears.register(registry)

        @kopf.on.event(names.GROUP, names.VERSION, TASKS, registry=registry)
        async def broken(event: Any, **_: Any) -> None:
            calls.append(event["type"])
            raise error

    async with scene.operator(register=register) as operator:
        await scene.watching()
        scene.server.create(TASKS, "mend")
        await scene.ears.heard("mend", "ADDED")
        scene.server.change(TASKS, "mend", spec={"cancel": True})
        await scene.ears.heard("mend", "MODIFIED")
        scene.server.delete(TASKS, "mend")
        await scene.ears.heard("mend", "DELETED")
        assert not operator.ended.done()
    assert calls == ["ADDED", "MODIFIED", "DELETED"]
    assert {asked.verb for asked in scene.server.asked} == READS
