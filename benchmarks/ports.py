"""Ports that do what those inside them do, and note how long each call was awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from ratchet.core import events as e
from ratchet.core.config import Config
from ratchet.core.facts import Asking, CallOrder, NetworkVerdict, Receipt, SandboxRef
from ratchet.core.records import End, Patch, Rerun, Result, Turn
from ratchet.core.replies import ModelFailure, RawReply
from ratchet.core.state import State
from ratchet.core.status import Summary
from ratchet.ports import (
    Claim,
    Journal,
    Journals,
    Model,
    ModelRequest,
    Sandbox,
    Sandboxes,
    SandboxGone,
    SandboxPending,
    SandboxReady,
    TaskRef,
)
from ratchet.shell.runner import Listener
from ratchet.shell.supervisor import World

from benchmarks.trace import Trace

Hold = Callable[[ModelRequest], Awaitable[None]]
"""Awaited before a model request is sent, outside of what is measured."""


async def let_pass(_: ModelRequest) -> None:
    """Let every request pass."""


def measured(world: World, trace: Trace, hold: Hold = let_pass) -> World:
    """The world with a trace of all that its loops await of their ports."""

    def listeners(task: TaskRef) -> tuple[Listener, ...]:
        return (_noting(trace, task.uid), *world.listeners(task))

    return replace(
        world,
        journals=_Journals(world.journals, trace),
        model=_Model(world.model, trace, hold),
        sandboxes=_Sandboxes(world.sandboxes, trace),
        listeners=listeners,
    )


def _noting(trace: Trace, uid: str) -> Listener:
    def listen(event: e.Event, state: State) -> None:
        if isinstance(event, e.TurnStored):
            trace.turn_stored(uid, event.turn.number)

    return listen


class _Model:
    def __init__(self, inner: Model, trace: Trace, hold: Hold) -> None:
        self._inner, self._trace, self._hold = inner, trace, hold

    async def ask(self, request: ModelRequest) -> RawReply | ModelFailure:
        await self._hold(request)
        with self._trace.span("model", "ask"):
            return await self._inner.ask(request)


class _Journals:
    def __init__(self, inner: Journals, trace: Trace) -> None:
        self._inner, self._trace = inner, trace

    async def claim(
        self, task: TaskRef, holder: str, now: datetime
    ) -> tuple[Claim, Journal] | None:
        with self._trace.span("journal", "claim"):
            claimed = await self._inner.claim(task, holder, now)
        if claimed is None:
            return None
        claim, journal = claimed
        return claim, _Journal(journal, self._trace)


class _Journal:
    def __init__(self, inner: Journal, trace: Trace) -> None:
        self._inner, self._trace = inner, trace

    async def append(self, record: Turn | End) -> tuple[Turn | End, bool]:
        with self._trace.span("journal", "append"):
            return await self._inner.append(record)

    async def record_results(self, turn: Turn, results: tuple[Result, ...]) -> Turn:
        with self._trace.span("journal", "record_results"):
            return await self._inner.record_results(turn, results)

    async def record_rerun(self, turn: Turn, rerun: Rerun) -> Turn:
        with self._trace.span("journal", "record_rerun"):
            return await self._inner.record_rerun(turn, rerun)

    async def mark_asking(self, asking: Asking, summary: Summary) -> None:
        with self._trace.span("journal", "mark_asking"):
            await self._inner.mark_asking(asking, summary)

    async def set_sandbox(self, sandbox: SandboxRef) -> None:
        with self._trace.span("journal", "set_sandbox"):
            await self._inner.set_sandbox(sandbox)

    async def summarise(self, summary: Summary) -> None:
        with self._trace.span("journal", "summarise"):
            await self._inner.summarise(summary)


class _Sandboxes:
    def __init__(self, inner: Sandboxes, trace: Trace) -> None:
        self._inner, self._trace = inner, trace

    def of(self, task: TaskRef, epoch: int) -> Sandbox:
        return _Sandbox(self._inner.of(task, epoch), self._trace)


class _Sandbox:
    def __init__(self, inner: Sandbox, trace: Trace) -> None:
        self._inner, self._trace = inner, trace

    async def prepare(
        self, config: Config, wanted: SandboxRef
    ) -> SandboxReady | SandboxPending | SandboxGone:
        with self._trace.span("sandbox", "prepare"):
            return await self._inner.prepare(config, wanted)

    async def network(self) -> NetworkVerdict:
        return await self._inner.network()  # beside the turns, and no part of any

    async def changed(self, wanted: SandboxRef) -> None:
        with self._trace.span("sandbox", "changed"):
            await self._inner.changed(wanted)

    async def run(self, order: CallOrder) -> Receipt:
        with self._trace.span("sandbox", "run"):
            return await self._inner.run(order)

    async def interrupt(self, order: CallOrder) -> Receipt | None:
        with self._trace.span("sandbox", "interrupt"):
            return await self._inner.interrupt(order)

    async def digest(self, path: str) -> str:
        with self._trace.span("sandbox", "digest"):
            return await self._inner.digest(path)

    async def patch(self) -> Patch:
        with self._trace.span("sandbox", "patch"):
            return await self._inner.patch()

    async def remove(self) -> None:
        with self._trace.span("sandbox", "remove"):
            await self._inner.remove()
