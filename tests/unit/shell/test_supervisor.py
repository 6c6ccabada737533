"""One loop per task, only under the Lease, whatever the watch says or forgets to say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ratchet.core.conditions import Phase
from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.facts import SandboxRef
from ratchet.core.tools import enabled_tools
from ratchet.fakes.clock import LoopClock, run
from ratchet.fakes.gate import OpenGate
from ratchet.fakes.journal import FakeJournals, Stage, Store, StoredTask
from ratchet.fakes.model import FakeModel, calls, script
from ratchet.fakes.sandbox import FakePod, FakeSandboxes
from ratchet.ports import JournalAway, SandboxAway, TaskRef
from ratchet.shell.supervisor import PodSeen, Supervisor, TaskSeen, World

from tests.unit.core.world import no_rules

CONFIG = Config(
    goal="Mend the sum.",
    model=ModelConfig(endpoint="default", url="http://model/v1", model="m"),
    sandbox=SandboxConfig(image="debian"),
    tools=enabled_tools((), ()),
)
TASK = TaskRef("work", "mend", "11111111-2222-3333-4444-555555555555")
PLAY = script(calls(("bash", {"command": "ls"})), calls(("finish", {"summary": "done"})))


@dataclass
class Lead:
    held: bool = True


@dataclass
class Scene:
    store: Store = field(default_factory=Store)
    failures: list[Exception] = field(default_factory=list)
    """Raised one by one when a record is to be created."""
    model: FakeModel = field(default_factory=lambda: FakeModel(PLAY, delay_s=2))
    sandboxes: FakeSandboxes = field(default_factory=FakeSandboxes)
    lead: Lead = field(default_factory=Lead)
    gate: OpenGate = field(default_factory=OpenGate)
    supervisor: Supervisor = field(init=False)
    task: StoredTask = field(init=False)

    def __post_init__(self) -> None:
        self.task = self.store.add(TASK, CONFIG)
        world = World(
            FakeJournals(self.store, self._faults),
            self.model,
            self.sandboxes,
            LoopClock(),
            self.gate,
            lambda _tool, _arguments: None,
            no_rules,
            lambda: 0.5,
            "me",
        )
        self.supervisor = Supervisor(world, self.lead)

    async def _faults(self, operation: str, stage: Stage) -> None:
        if operation == "append" and stage is Stage.BEFORE and self.failures:
            raise self.failures.pop()

    async def until(self, holds: Callable[[], bool], within_s: float = 60) -> None:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - time is virtual here
                await asyncio.sleep(0.01)


def play(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        scene = Scene()
        await story(scene)
        await scene.supervisor.stop()

    run(main())


def test_a_task_that_is_seen_many_times_gets_one_loop() -> None:
    async def story(scene: Scene) -> None:
        for _ in range(5):
            scene.supervisor.task_seen(TaskSeen(TASK))
        await scene.until(lambda: scene.task.finished)
        assert scene.task.epoch == 1
        assert scene.task.summary is not None
        assert scene.task.summary.phase is Phase.SUCCEEDED

    play(story)


def test_nothing_runs_without_the_lease_and_everything_seen_runs_once_it_is_held() -> None:
    async def story(scene: Scene) -> None:
        scene.lead.held = False
        scene.supervisor.task_seen(TaskSeen(TASK))
        await asyncio.sleep(30)
        assert scene.task.epoch == 0
        scene.lead.held = True
        scene.supervisor.leadership_changed()
        await scene.until(lambda: scene.task.finished)

    play(story)


def test_a_lost_lease_stops_the_loop_and_closes_its_model_request() -> None:
    async def story(scene: Scene) -> None:
        scene.supervisor.task_seen(TaskSeen(TASK))
        await scene.until(lambda: bool(scene.model.seen))
        scene.lead.held = False
        scene.supervisor.leadership_changed()
        await asyncio.sleep(10)
        assert scene.model.aborted == 1
        assert scene.supervisor.running == 0
        assert not scene.task.finished

    play(story)


def test_a_priority_is_that_of_the_first_ticket_and_its_change_reaches_the_queue() -> None:
    async def story(scene: Scene) -> None:
        scene.gate.close()
        scene.supervisor.task_seen(TaskSeen(TASK, priority=5))
        await scene.until(lambda: bool(scene.gate.waiting))
        scene.supervisor.task_seen(TaskSeen(TASK, priority=5))
        scene.supervisor.task_seen(TaskSeen(TASK, priority=9))
        await scene.until(lambda: len(scene.gate.seen) > 1)
        assert [ticket.priority for ticket in scene.gate.waiting] == [9]
        scene.gate.open()
        await scene.until(lambda: scene.task.finished)
        priorities = [ticket.priority for ticket in scene.gate.seen]
        assert priorities[:2] == [5, 9] and set(priorities[1:]) == {9}

    play(story)


def test_a_lost_lease_leaves_the_queue() -> None:
    async def story(scene: Scene) -> None:
        scene.gate.close()
        scene.supervisor.task_seen(TaskSeen(TASK))
        await scene.until(lambda: bool(scene.gate.waiting))
        scene.lead.held = False
        scene.supervisor.leadership_changed()
        await scene.until(lambda: not scene.gate.waiting)

    play(story)


def test_a_cancel_reaches_the_running_loop() -> None:
    async def story(scene: Scene) -> None:
        scene.supervisor.task_seen(TaskSeen(TASK))
        await scene.until(lambda: bool(scene.model.seen))
        scene.supervisor.task_seen(TaskSeen(TASK, cancel=True))
        await scene.until(lambda: scene.task.finished, 1)
        assert scene.task.summary is not None
        assert scene.task.summary.phase is Phase.CANCELLED
        assert scene.model.aborted == 1

    play(story)


def test_a_deleted_task_is_dropped_and_its_sandbox_removed() -> None:
    async def story(scene: Scene) -> None:
        scene.supervisor.task_seen(TaskSeen(TASK))
        await scene.until(lambda: bool(scene.model.seen))
        scene.supervisor.task_seen(TaskSeen(TASK, gone=True))
        await scene.until(lambda: TASK.uid in scene.sandboxes.removed, 1)
        assert scene.model.aborted == 1
        assert scene.supervisor.running == 0

    play(story)


def test_a_pod_left_by_a_lost_owner_is_removed_whichever_event_comes_first() -> None:
    for pod_first in (True, False):

        async def story(scene: Scene, pod_first: bool = pod_first) -> None:
            scene.sandboxes.pods[TASK.uid, 1] = FakePod(1, "ledger")
            pod = PodSeen(TASK, ready=True, gone=False)
            task = TaskSeen(TASK, finished=True)
            if pod_first:
                scene.supervisor.pod_seen(pod)
                scene.supervisor.task_seen(task)
            else:
                scene.supervisor.task_seen(task)
                scene.supervisor.pod_seen(pod)
            await scene.until(lambda: TASK.uid in scene.sandboxes.removed, 1)

        play(story)


def test_a_pod_that_comes_late_is_removed_too() -> None:
    async def story(scene: Scene) -> None:
        scene.supervisor.task_seen(TaskSeen(TASK, finished=True))
        for generation in (1, 2):
            scene.sandboxes.pods[TASK.uid, generation] = late = FakePod(generation, "ledger")
            scene.supervisor.pod_seen(PodSeen(TASK, ready=True, gone=False))
            await scene.until(lambda late=late: not late.alive, 1)  # type: ignore[misc]

    play(story)


def test_a_pod_left_by_a_lost_owner_is_removed_by_a_standby_once_it_leads() -> None:
    async def story(scene: Scene) -> None:
        scene.lead.held = False
        scene.sandboxes.pods[TASK.uid, 1] = FakePod(1, "ledger")
        scene.supervisor.task_seen(TaskSeen(TASK, finished=True))
        scene.supervisor.pod_seen(PodSeen(TASK, ready=True, gone=False))
        await asyncio.sleep(5)
        assert not scene.sandboxes.removed, "a standby removed what may be in use"
        scene.lead.held = True
        scene.supervisor.leadership_changed()
        await scene.until(lambda: TASK.uid in scene.sandboxes.removed, 1)

    play(story)


def test_the_end_of_an_earlier_pod_does_not_hide_a_later_one() -> None:
    async def story(scene: Scene) -> None:
        scene.sandboxes.pods[TASK.uid, 2] = FakePod(2, "ledger")
        scene.supervisor.pod_seen(PodSeen(TASK, ready=True, gone=False, pod="first"))
        scene.supervisor.pod_seen(PodSeen(TASK, ready=True, gone=False, pod="second"))
        scene.supervisor.pod_seen(PodSeen(TASK, ready=False, gone=True, pod="first"))
        scene.supervisor.task_seen(TaskSeen(TASK, finished=True))
        await scene.until(lambda: TASK.uid in scene.sandboxes.removed, 1)

    play(story)


def test_a_sandbox_that_cannot_be_removed_now_is_removed_later_without_further_news() -> None:
    async def story(scene: Scene) -> None:
        scene.sandboxes.refusals = [JournalAway("the API server is away"), SandboxAway("still")]
        scene.supervisor.pod_seen(PodSeen(TASK, ready=True, gone=False))
        scene.supervisor.task_seen(TaskSeen(TASK, finished=True))
        await scene.until(lambda: TASK.uid in scene.sandboxes.removed, 5)

    play(story)


def test_a_task_that_is_no_more_although_nobody_said_so_has_its_loop_ended() -> None:
    async def story(scene: Scene) -> None:
        scene.model.delay_s = 600
        scene.supervisor.task_seen(TaskSeen(TASK))
        await scene.until(lambda: bool(scene.model.seen))
        assert scene.supervisor.known == {TASK.uid}
        scene.supervisor.not_there([TASK.uid, "somebody-else"])
        await scene.until(lambda: scene.model.aborted == 1, 1)
        assert not scene.supervisor.known

    play(story)


def test_a_lost_pod_is_noticed_while_the_model_thinks() -> None:
    async def story(scene: Scene) -> None:
        scene.model.delay_s = 20
        scene.supervisor.task_seen(TaskSeen(TASK))
        await scene.until(lambda: bool(scene.task.sandbox.ledger))
        scene.sandboxes.lose(TASK.uid, 1)
        scene.supervisor.pod_seen(PodSeen(TASK, ready=False, gone=True))
        await scene.until(lambda: scene.task.sandbox.generation == 2, 2)
        assert scene.task.sandbox == SandboxRef(2) or scene.task.sandbox.ledger

    play(story)


def test_a_pod_that_came_up_is_noticed_at_once_and_disturbs_nobody_later() -> None:
    async def story(scene: Scene) -> None:
        scene.sandboxes.start_delay_s, scene.sandboxes.look_again_s = 1, 60
        scene.supervisor.task_seen(TaskSeen(TASK))
        scene.supervisor.pod_seen(PodSeen(TASK, ready=False, gone=False))
        await scene.until(lambda: any(pod.ready for pod in scene.sandboxes.pods.values()))
        scene.supervisor.pod_seen(PodSeen(TASK, ready=True, gone=False))
        await scene.until(lambda: bool(scene.task.sandbox.ledger), 1)

    play(story)


def test_a_broken_loop_is_started_again_and_does_not_touch_the_others() -> None:
    async def story(scene: Scene) -> None:
        scene.failures = [RuntimeError("a bug"), RuntimeError("again")]
        scene.supervisor.task_seen(TaskSeen(TASK))
        await scene.until(lambda: scene.task.finished)
        assert not scene.failures

    play(story)
