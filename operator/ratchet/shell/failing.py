"""Ports with a failpoint around each of their calls.

Only where faults are switched on is a world made of these; the names are in
`ratchet.failpoints.points`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from ratchet.core.conditions import TERMINAL_PHASES, Phase
from ratchet.core.config import Config
from ratchet.core.facts import Asking, CallOrder, NetworkVerdict, Receipt, SandboxRef
from ratchet.core.records import End, Patch, Rerun, Result, Turn
from ratchet.core.replies import FailureKind, ModelFailure, RawReply
from ratchet.core.status import Summary
from ratchet.failpoints import Point, step
from ratchet.ports import (
    Claim,
    Journal,
    JournalAway,
    Journals,
    Model,
    ModelRequest,
    Sandbox,
    SandboxAway,
    Sandboxes,
    SandboxGone,
    SandboxPending,
    SandboxReady,
    TaskRef,
)
from ratchet.shell.supervisor import World


def failing(world: World) -> World:
    """The same world, with failpoints."""
    return replace(
        world,
        journals=FailingJournals(world.journals),
        model=FailingModel(world.model),
        sandboxes=FailingSandboxes(world.sandboxes),
    )


@dataclass(frozen=True, slots=True)
class FailingJournals:
    """ports.Journals"""

    inner: Journals

    async def claim(
        self, task: TaskRef, holder: str, now: datetime
    ) -> tuple[Claim, Journal] | None:
        claimed = await step(Point.CLAIM, lambda: self.inner.claim(task, holder, now), JournalAway)
        if claimed is None:
            return None
        claim, journal = claimed
        return claim, FailingJournal(journal)


@dataclass(slots=True)
class _Shown:
    """What the status showed after the last write of this owner."""

    phase: Phase | None = None
    turns: int = 0


@dataclass(frozen=True, slots=True)
class FailingJournal:
    """ports.Journal"""

    inner: Journal
    shown: _Shown = field(default_factory=_Shown)

    async def append(self, record: Turn | End) -> tuple[Turn | End, bool]:
        point = Point.APPEND_END if isinstance(record, End) else Point.APPEND_TURN
        return await step(point, lambda: self.inner.append(record), JournalAway)

    async def record_results(self, turn: Turn, results: tuple[Result, ...]) -> Turn:
        return await step(
            Point.RECORD_RESULTS, lambda: self.inner.record_results(turn, results), JournalAway
        )

    async def record_rerun(self, turn: Turn, rerun: Rerun) -> Turn:
        return await step(
            Point.RECORD_RERUN, lambda: self.inner.record_rerun(turn, rerun), JournalAway
        )

    async def mark_asking(self, asking: Asking, summary: Summary) -> None:
        await self._show(
            Point.MARK_ASKING, summary, lambda: self.inner.mark_asking(asking, summary)
        )

    async def set_sandbox(self, sandbox: SandboxRef) -> None:
        point = Point.BIND_LEDGER if sandbox.ledger else Point.RAISE_GENERATION
        arrived = False

        async def deliver() -> None:
            """Over the one version that was read: delivered again, it finds another one."""
            nonlocal arrived
            if arrived:
                raise JournalAway("the status is not as it was when this was sent")
            await self.inner.set_sandbox(sandbox)
            arrived = True

        await step(point, deliver, JournalAway)

    async def summarise(self, summary: Summary) -> None:
        point = Point.CONCLUDE if summary.phase in TERMINAL_PHASES else Point.SUMMARISE
        await self._show(point, summary, lambda: self.inner.summarise(summary))

    async def _show(
        self, point: Point, summary: Summary, write: Callable[[], Awaitable[None]]
    ) -> None:
        """A write of the status tests phase and turns: it is for those that it was sent over.

        Delivered again, to a status of another phase or turn, it is refused by the API server. The
        port would read that one first, and write over it; so the refusal is made here.
        """
        sent_over: _Shown | None = None

        async def deliver() -> None:
            nonlocal sent_over
            sent_over = sent_over or replace(self.shown)
            if sent_over != self.shown:
                raise JournalAway("the status is not as it was when this was sent")
            await write()
            self.shown.phase, self.shown.turns = summary.phase, summary.turns

        await step(point, deliver, JournalAway)


@dataclass(frozen=True, slots=True)
class FailingModel:
    """ports.Model, whose failures are answers"""

    inner: Model

    async def ask(self, request: ModelRequest) -> RawReply | ModelFailure:
        try:
            return await step(Point.ASK, lambda: self.inner.ask(request), _NoReply)
        except _NoReply as silence:
            return ModelFailure(FailureKind.RETRY, str(silence))


class _NoReply(Exception):
    """No answer came from the model."""


@dataclass(frozen=True, slots=True)
class FailingSandboxes:
    """ports.Sandboxes"""

    inner: Sandboxes

    def of(self, task: TaskRef, epoch: int) -> Sandbox:
        return FailingSandbox(self.inner.of(task, epoch))


@dataclass(frozen=True, slots=True)
class FailingSandbox:
    """ports.Sandbox"""

    inner: Sandbox

    async def prepare(
        self, config: Config, wanted: SandboxRef
    ) -> SandboxReady | SandboxPending | SandboxGone:
        return await step(Point.PREPARE, lambda: self.inner.prepare(config, wanted), SandboxAway)

    async def changed(self, wanted: SandboxRef) -> None:
        await self.inner.changed(wanted)

    async def network(self) -> NetworkVerdict:
        return await step(Point.NETWORK, self.inner.network, SandboxAway)

    async def run(self, order: CallOrder) -> Receipt:
        return await step(Point.RUN, lambda: self.inner.run(order), SandboxAway)

    async def interrupt(self, order: CallOrder) -> Receipt | None:
        return await step(Point.INTERRUPT, lambda: self.inner.interrupt(order), SandboxAway)

    async def digest(self, path: str) -> str:
        return await step(Point.DIGEST, lambda: self.inner.digest(path), SandboxAway)

    async def patch(self) -> Patch:
        return await step(Point.PATCH, self.inner.patch, SandboxAway)

    async def remove(self) -> None:
        await step(Point.REMOVE, self.inner.remove, SandboxAway)
