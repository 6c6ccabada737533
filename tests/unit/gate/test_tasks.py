"""Whole tasks at the real gate: supervisor and runners, with a model that refuses whom it has no slot for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ratchet.core.admission import Terms
from ratchet.core.conditions import Phase
from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.facts import EndpointRef
from ratchet.core.replies import FailureKind, ModelFailure, RawReply
from ratchet.core.tools import enabled_tools
from ratchet.fakes.clock import BEGIN, LoopClock, run
from ratchet.fakes.journal import FakeJournals, Store, StoredTask
from ratchet.fakes.model import FakeModel, calls, script
from ratchet.fakes.sandbox import FakeSandboxes
from ratchet.ports import ModelRequest, TaskRef
from ratchet.shell.gate import ModelGate, View
from ratchet.shell.supervisor import Supervisor, TaskSeen, World

from tests.unit.core.world import no_rules

SLOTS, LATENCY_S, TASKS, TURNS = 8, 2.0, 250, 2
CONFIG = Config(
    goal="Mend the sum.",
    model=ModelConfig(endpoint="default", url="http://model/v1", model="m"),
    sandbox=SandboxConfig(image="debian"),
    tools=enabled_tools((), ()),
)
ENDPOINT = EndpointRef("work", "default")
PLAY = script(calls(("bash", {"command": "ls"})), calls(("finish", {"summary": "done"})))


@dataclass
class Slots:
    """A model with so many slots and no queue."""

    model: FakeModel = field(default_factory=lambda: FakeModel(PLAY, LATENCY_S))
    busy: int = 0
    refused: int = 0

    async def ask(self, request: ModelRequest) -> RawReply | ModelFailure:
        if self.busy >= SLOTS:
            self.refused += 1
            return ModelFailure(FailureKind.WAIT, "It is full.", 429)
        self.busy += 1
        try:
            return await self.model.ask(request)
        finally:
            self.busy -= 1


@dataclass
class Lead:
    held: bool = True


class Scene:
    def __init__(self, tasks: int) -> None:
        self.store, self.model, self.lead = Store(), Slots(), Lead()
        self.gate = ModelGate(LoopClock())
        self.gate.revise(ENDPOINT, Terms(requests=SLOTS))
        self.tasks: list[StoredTask] = []
        self.ended: dict[str, float] = {}
        for number in range(tasks):
            ref = TaskRef("work", f"task-{number:03}", f"{number:08}-2222-3333-4444-555555555555")
            self.tasks.append(self.store.add(ref, CONFIG))
        self.supervisor = Supervisor(
            World(
                FakeJournals(self.store), self.model, FakeSandboxes(), LoopClock(), self.gate,
                lambda _tool, _arguments: None, no_rules, lambda: 0.5, "me",
            ),
            self.lead,
        )  # fmt: skip

    def see_all(self) -> None:
        for task in self.tasks:
            self.supervisor.task_seen(TaskSeen(task.ref))

    async def until_finished(self) -> float:
        """When the last one had ended, in seconds."""
        while not all(task.finished for task in self.tasks):  # noqa: ASYNC110 - time is virtual here
            await asyncio.sleep(0.5)
        return (LoopClock().now() - BEGIN).total_seconds()


def test_many_tasks_end_without_a_refusal_and_no_place_stays_empty() -> None:
    async def story() -> tuple[Scene, float, set[str], View]:
        scene = Scene(TASKS)
        scene.see_all()
        await asyncio.sleep(60)
        shown = {
            t.summary.message for t in scene.tasks if t.summary and t.summary.phase is Phase.QUEUED
        }
        ended = await scene.until_finished()
        await scene.supervisor.stop()
        return scene, ended, shown, scene.gate.view(ENDPOINT)

    scene, ended, shown, view = run(story())
    assert scene.model.refused == 0
    assert len(scene.model.model.seen) == TASKS * TURNS
    ideal_s = TASKS * TURNS * LATENCY_S / SLOTS
    assert ended <= 1.05 * ideal_s
    assert len(shown) > 80 and all("all 8 places are taken" in text for text in shown)
    assert (view.running, view.queued) == (0, 0)
    # Two writes for each wait that is shown, and the few that each turn costs anyway.
    assert sum(task.summaries for task in scene.tasks) < TASKS * (5 * TURNS + 8)


def test_a_process_that_stops_gives_all_places_back_and_leaves_the_queue() -> None:
    async def story() -> tuple[View, View]:
        scene = Scene(20)
        scene.see_all()
        await asyncio.sleep(3)
        before = scene.gate.view(ENDPOINT)
        await scene.supervisor.stop()
        return before, scene.gate.view(ENDPOINT)

    before, after = run(story())
    assert before.running == SLOTS and before.queued > 0
    assert (after.running, after.queued) == (0, 0)
