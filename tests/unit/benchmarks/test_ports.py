"""A loop with measured ports does the same, and leaves notes of all that it awaited."""

from __future__ import annotations

import asyncio
from collections import Counter

from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.tools import enabled_tools
from ratchet.fakes.clock import LoopClock, run
from ratchet.fakes.gate import OpenGate
from ratchet.fakes.journal import FakeJournals, Store
from ratchet.fakes.model import FakeModel, calls, script
from ratchet.fakes.sandbox import FakeSandboxes
from ratchet.ports import ModelRequest, TaskRef
from ratchet.shell.runner import Listener
from ratchet.shell.supervisor import Supervisor, TaskSeen, World

from benchmarks.ports import measured
from benchmarks.trace import Trace, turns
from tests.unit.core.world import no_rules

CONFIG = Config(
    goal="Do nothing, twice.",
    model=ModelConfig(endpoint="default", url="http://model/v1", model="m"),
    sandbox=SandboxConfig(image="debian"),
    tools=enabled_tools((), ()),
)
TASK = TaskRef("work", "idle", "11111111-2222-3333-4444-555555555555")
NO_OP = calls(("bash", {"command": ":"}))
FINISH = calls(("finish", {"summary": "done"}))


class Lead:
    held = True


def played() -> tuple[Trace, list[str], list[str]]:
    """The trace of a task of three turns, the events told to the world's own listener, the gate's keys."""
    trace, told, asked = Trace(), [], []

    def listeners(_: TaskRef) -> tuple[Listener, ...]:
        return (lambda event, state: told.append(type(event).__name__),)

    async def gate(request: ModelRequest) -> None:
        asked.append(request.routing_key)

    async def main() -> None:
        store = Store()
        store.add(TASK, CONFIG)
        world = World(
            FakeJournals(store),
            FakeModel(script(NO_OP, NO_OP, FINISH)),
            FakeSandboxes(),
            LoopClock(),
            OpenGate(),
            lambda _tool, _arguments: None,
            no_rules,
            lambda: 0.5,
            "me",
            listeners,
        )
        supervisor = Supervisor(measured(world, trace, gate), Lead())
        supervisor.task_seen(TaskSeen(TASK))
        async with asyncio.timeout(60):
            while "SandboxRemoved" not in told:  # noqa: ASYNC110 - time is virtual here
                await asyncio.sleep(0.01)
        await supervisor.stop()

    run(main())
    return trace, told, asked


def test_every_call_of_a_port_is_noted() -> None:
    trace, _, _ = played()
    noted = Counter(f"{span.port}.{span.op}" for span in trace.spans)
    assert noted["journal.claim"] >= 1
    assert noted["model.ask"] == noted["journal.mark_asking"] == 3
    assert noted["journal.append"] == 4, "three turns and the end"
    assert noted["journal.record_results"] == 3
    assert noted["sandbox.run"] == 2
    assert noted["sandbox.patch"] == noted["sandbox.remove"] == 1


def test_turns_are_noted_as_they_are_stored() -> None:
    trace, _, _ = played()
    assert [note.number for note in trace.stored] == [1, 2, 3]
    for turn in turns(trace, TASK.uid):
        assert turn.wall >= turn.own > 0 and turn.commit > 0 and turn.tool > 0 and turn.model > 0


def test_the_world_is_otherwise_as_it_was() -> None:
    _, told, asked = played()
    assert told.count("TurnStored") == 3 and told[-1] == "SandboxRemoved"
    assert asked == [TASK.uid] * 3
