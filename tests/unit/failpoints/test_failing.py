"""Ports with failpoints: only where faults are switched on, and faithful to what a wire can do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from ratchet.core.conditions import Phase, Reason
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.replies import FailureKind, ModelFailure, Usage
from ratchet.core.status import Summary
from ratchet.failpoints import Fault, Point, enable, step
from ratchet.failpoints.steps import Away
from ratchet.fakes.clock import BEGIN, LoopClock, run
from ratchet.fakes.gate import OpenGate
from ratchet.fakes.journal import FakeJournals, Store
from ratchet.fakes.model import FakeModel, script
from ratchet.fakes.sandbox import FakeSandboxes
from ratchet.ports import Journal, JournalAway, ModelRequest
from ratchet.shell.failing import FailingModel, failing
from ratchet.shell.main import with_failpoints
from ratchet.shell.processfaults import ProcessFaults, Strike, read_faults
from ratchet.shell.supervisor import World

from tests.unit.core.world import CONFIG, FINISHED, TASK, no_rules

T = TypeVar("T")


def world(store: Store | None = None) -> World:
    return World(
        journals=FakeJournals(store or Store()),
        model=FakeModel(script(FINISHED)),
        sandboxes=FakeSandboxes(),
        clock=LoopClock(),
        gate=OpenGate(),
        check=lambda _tool, _arguments: None,
        rules=no_rules,
        random=lambda: 0.5,
        holder="op-1",
    )


def summary(phase: Phase, turns: int) -> Summary:
    return Summary(phase, "", Reason.ACCEPTED, "", turns, 0, Usage(), 0, 0, ())


def test_nothing_is_wrapped_where_the_variable_is_not_set() -> None:
    wired = world()
    assert read_faults({}) is None
    assert with_failpoints(read_faults({}))(wired) is wired


def test_every_port_is_wrapped_where_it_is_set() -> None:
    wired = world()
    given = with_failpoints(read_faults({"RATCHET_FAILPOINT": "run=error"}))(wired)
    assert given.journals is not wired.journals
    assert given.model is not wired.model
    assert given.sandboxes is not wired.sandboxes


def test_a_step_without_faults_is_the_call_itself() -> None:
    async def call() -> str:
        return "well"

    coroutine = step(Point.RUN, call, JournalAway)
    with pytest.raises(StopIteration, match="well"):  # it never waits
        coroutine.send(None)


def test_a_silent_model_is_a_failed_attempt() -> None:
    async def ask() -> object:
        with enable(ProcessFaults((Strike(Point.ASK, Fault.ERROR),))):
            request = ModelRequest(CONFIG.model, "work", "{}", "rid", "key")
            return await FailingModel(FakeModel(script(FINISHED))).ask(request)

    found = run(ask())
    assert isinstance(found, ModelFailure) and found.kind is FailureKind.RETRY


@dataclass(slots=True)
class Note:
    """Lets all calls pass, and remembers their points; delivers some again when told to."""

    passed: list[Point] = field(default_factory=list)
    calls: dict[Point, Callable[[], Awaitable[Any]]] = field(default_factory=dict)

    async def step(self, point: Point, call: Callable[[], Awaitable[T]], away: Away) -> T:
        self.passed.append(point)
        self.calls[point] = call
        return await call()


async def claimed(store: Store) -> Journal:
    found = await failing(world(store)).journals.claim(TASK, "op-1", BEGIN)
    assert found is not None
    return found[1]


def with_note(story: Callable[[Store, Journal, Note], Coroutine[Any, Any, None]]) -> None:
    async def tell() -> None:
        store, note = Store(), Note()
        store.add(TASK, CONFIG)
        with enable(note):
            await story(store, await claimed(store), note)

    run(tell())


def test_the_status_of_an_earlier_turn_that_arrives_again_is_refused() -> None:
    async def story(store: Store, journal: Journal, note: Note) -> None:
        await journal.mark_asking(Asking(1, 1, "d"), summary(Phase.RUNNING, 0))
        await journal.summarise(summary(Phase.RUNNING, 0))
        await note.calls[Point.SUMMARISE]()
        await journal.summarise(summary(Phase.SUCCEEDED, 1))
        assert note.passed[-1] is Point.CONCLUDE
        for late in (Point.MARK_ASKING, Point.SUMMARISE):
            with pytest.raises(JournalAway):
                await note.calls[late]()
        assert store.tasks[TASK.namespace, TASK.name].finished

    with_note(story)


def test_a_sandbox_that_was_named_is_not_named_again() -> None:
    async def story(store: Store, journal: Journal, note: Note) -> None:
        await journal.set_sandbox(SandboxRef(1, "ledger"))
        await journal.set_sandbox(SandboxRef(2))
        for late in (Point.BIND_LEDGER, Point.RAISE_GENERATION):
            with pytest.raises(JournalAway):
                await note.calls[late]()
        assert store.tasks[TASK.namespace, TASK.name].sandbox == SandboxRef(2)

    with_note(story)


def test_a_claim_passes_its_parts_in_the_order_of_its_requests() -> None:
    async def claims() -> list[Point]:
        store, note = Store(), Note()
        store.add(TASK, CONFIG)
        with enable(note):
            await claimed(store)
            await claimed(store)
        await asyncio.sleep(0)
        return note.passed

    first = [Point.CLAIM, Point.CLAIM_OWNER, Point.CLAIM_START]
    assert run(claims()) == [*first, Point.CLAIM, Point.CLAIM_OWNER, Point.CLAIM_READ]
