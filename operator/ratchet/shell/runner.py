"""The one place where the loop meets the outside: perform a wish, note the fact, fold it.

A runner owns one claimed task from its claim to its end. It decides nothing:
`core.loop.decide` says what should be under way, and each end of something
under way is an event that goes through `core.evolve.evolve`. Whatever kills
this process, the next owner begins with the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from ratchet.core import commands as c
from ratchet.core import events as e
from ratchet.core.evolve import begin, evolve, misfit
from ratchet.core.keys import request_id
from ratchet.core.loop import decide, wake
from ratchet.core.records import End, Outcome, Turn
from ratchet.core.replies import ModelFailure
from ratchet.core.state import State
from ratchet.core.status import Summary, summarise
from ratchet.core.verdict import ArgumentCheck, judge
from ratchet.ports import (
    Claim,
    Clock,
    Journal,
    JournalAway,
    JournalRefused,
    Model,
    ModelRequest,
    OwnershipLost,
    Receipt,
    Sandbox,
    SandboxAway,
    SandboxGone,
    SandboxPending,
    SandboxReady,
    SandboxRefused,
)
from ratchet.shell.summaries import Summaries

Listener = Callable[[e.Event, State], None]
"""Told of each event after it was folded, with the state that it led to. Must be quick."""

INTERRUPT_WITHIN_S = 5.0
"""How long the end of a call may take that is stopped from outside."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What a runner needs of the world."""

    journal: Journal
    model: Model
    sandbox: Sandbox
    clock: Clock
    check: ArgumentCheck
    random: Callable[[], float]
    """A number in [0, 1), for jitter."""


class Runner:
    """Runs one claimed task. Call `run` once; `notify` may be called at any time."""

    def __init__(
        self, claim: Claim, outside: Outside, listeners: tuple[Listener, ...] = ()
    ) -> None:
        self._task = claim.task
        self._out = outside
        self._listeners = listeners
        self._inbox: asyncio.Queue[tuple[c.Command | None, e.Event | None]] = asyncio.Queue()
        self._under_way: dict[c.Command, asyncio.Task[None]] = {}
        self._dropped: set[asyncio.Task[None]] = set()
        self._summaries = Summaries()
        self._summary_write: asyncio.Task[None] | None = None
        self._status = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None
        self._timer_at: datetime | None = None
        self.state = begin(
            task_uid=claim.task.uid,
            epoch=claim.epoch,
            started=claim.started,
            deadline=claim.deadline,
            cancelled=claim.cancel,
            asking=claim.asking,
            lost_requests=claim.lost_requests,
            sandbox=claim.sandbox,
            records=claim.records,
        )

    def notify(self, event: e.Event) -> None:
        """Tell the loop of something that was seen from outside (cancel, a changed pod)."""
        self._inbox.put_nowait((None, event))

    async def run(self) -> State:
        """Go on until the task has ended or is somebody else's. Cancelling stops at any point."""
        try:
            while not self.state.over:
                now = self._out.clock.now()
                self._reconcile(decide(self.state, now))
                self._summarise(now)
                self._set_timer(self._next_time(now), now)
                await self._take_events()
            return self.state
        finally:
            await self._stop()

    # --- bookkeeping -----------------------------------------------------------------------------

    def _reconcile(self, wishes: tuple[c.Command, ...]) -> None:
        for command, task in list(self._under_way.items()):
            if command.interruptible and command not in wishes:
                del self._under_way[command]
                self._drop(task)
        for command in wishes:
            if command not in self._under_way:
                self._under_way[command] = asyncio.create_task(self._perform(command))

    def _drop(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._dropped.add(task)
        task.add_done_callback(self._dropped.discard)

    async def _take_events(self) -> None:
        """Wait for one event, and fold all that are there."""
        self._fold(*await self._inbox.get())
        while not self._inbox.empty():
            self._fold(*self._inbox.get_nowait())

    def _fold(self, command: c.Command | None, event: e.Event | None) -> None:
        if command is not None:
            self._under_way.pop(command, None)
        if event is None:
            return
        self.state = evolve(self.state, event)
        for listener in self._listeners:
            listener(event, self.state)

    def _next_time(self, now: datetime) -> datetime | None:
        times = (wake(self.state, now), self._summaries.due(now))
        return min((moment for moment in times if moment is not None), default=None)

    def _set_timer(self, at: datetime | None, now: datetime) -> None:
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._drop(self._timer)
        self._timer_at = at
        self._timer = asyncio.create_task(self._ring(at, now)) if at is not None else None

    async def _ring(self, at: datetime, now: datetime) -> None:
        await self._out.clock.sleep(max(0.0, (at - now).total_seconds()))
        self._timer_at = self._timer = None
        self._inbox.put_nowait((None, None))

    async def _stop(self) -> None:
        for task in (*self._under_way.values(), self._timer, self._summary_write):
            if task is not None:
                self._drop(task)
        self._under_way.clear()
        if self._dropped:
            await asyncio.gather(*self._dropped, return_exceptions=True)

    # --- the status ------------------------------------------------------------------------------

    def _summarise(self, now: datetime) -> None:
        """Write the summary when it is due, at most one write at a time."""
        if self.state.over or self.state.end is not None or self.state.broken:
            return  # the final status is a command of its own
        self._summaries.see(summarise(self.state, now), now)
        due = self._summaries.due(now)
        if due is not None and due <= now and not self.state.journal_backoff.blocks(now):
            self._summary_write = asyncio.create_task(self._write_summary())
            self._summaries.written(now)

    async def _write_summary(self) -> None:
        event = await self._guarded(self._put_summary())
        if event is not None:
            self.notify(event)

    async def _put_summary(self) -> None:
        async with self._status:
            await self._out.journal.summarise(self._fresh_summary())

    def _fresh_summary(self) -> Summary:
        now = self._out.clock.now()
        summary = summarise(self.state, now)
        self._summaries.see(summary, now)
        self._summaries.written(now)
        return summary

    async def _guarded(self, write: asyncio.Future[None] | object) -> e.Event | None:
        """Await a write whose success is no event of its own."""
        try:
            await write  # type: ignore[misc]
        except JournalAway:
            self._summaries.failed()
            return e.JournalFailed(self._out.clock.now())
        except OwnershipLost:
            return e.OwnerLost()
        except JournalRefused as refused:
            return e.JournalBroken(str(refused))
        return None

    # --- performing ------------------------------------------------------------------------------

    async def _perform(self, command: c.Command) -> None:
        now = self._out.clock.now
        try:
            event = await self._do(command)
        except JournalAway:
            event = e.JournalFailed(now())
        except OwnershipLost:
            event = e.OwnerLost()
        except JournalRefused as refused:
            event = e.JournalBroken(str(refused))
        except SandboxAway as away:
            event = e.SandboxUnreachable(str(away), now())
        except SandboxRefused as refused_call:
            event = self._refused(refused_call)
        self._inbox.put_nowait((command, event))

    def _refused(self, refused: SandboxRefused) -> e.Event:
        match refused.code:
            case "stale_epoch":
                return e.OwnerLost()
            case "wrong_ledger":
                return e.SandboxVanished(self.state.sandbox.ref.generation, str(refused))
            case "too_large":
                return e.PatchTaken(None, str(refused))
            case "conflict":
                return e.JournalBroken(str(refused))
            case _:
                return e.SandboxUnreachable(str(refused), self._out.clock.now())

    async def _do(self, command: c.Command) -> e.Event:
        match command:
            case c.Ask():
                return await self._ask(command)
            case c.MarkAsking(asking):
                async with self._status:
                    await self._out.journal.mark_asking(asking, self._fresh_summary())
                return e.AskingMarked(asking)
            case c.StoreTurn() | c.StoreEnd() | c.StoreRerun() | c.StoreResults():
                return await self._store(command)
            case c.BindLedger(ref):
                async with self._status:
                    await self._out.journal.set_sandbox(ref)
                return e.LedgerBound(ref)
            case c.RaiseGeneration(ref):
                async with self._status:
                    await self._out.journal.set_sandbox(ref)
                return e.GenerationRaised(ref)
            case c.Conclude():
                async with self._status:
                    await self._out.journal.summarise(self._fresh_summary())
                return e.Concluded()
            case _:
                return await self._in_sandbox(command)

    async def _ask(self, command: c.Ask) -> e.Event:
        state, task = self.state, self._task
        config = state.config
        raw = await self._out.model.ask(
            ModelRequest(
                config=config.model,
                namespace=task.namespace,
                body=command.request.body,
                rid=request_id(task.uid, command.turn, command.attempt, state.epoch),
                routing_key=task.uid,
            )
        )
        if isinstance(raw, ModelFailure):
            now, jitter = self._out.clock.now(), self._out.random()
            return e.AskFailed(command.turn, command.attempt, raw, now, jitter)
        reply = judge(
            raw,
            task_uid=task.uid,
            turn=command.turn,
            attempt=command.attempt,
            endpoint=config.model.endpoint,
            tools=config.tools,
            check=self._out.check,
        )
        return e.Replied(command.turn, command.digest, reply)

    async def _store(
        self, command: c.StoreTurn | c.StoreEnd | c.StoreRerun | c.StoreResults
    ) -> e.Event:
        journal = self._out.journal
        match command:
            case c.StoreTurn(turn=turn):
                return self._appended(*await journal.append(turn))
            case c.StoreEnd(end=end):
                return self._appended(*await journal.append(end))
            case c.StoreRerun(rerun=rerun, turn=turn):
                return e.RerunStored(await journal.record_rerun(turn, rerun))
            case c.StoreResults(turn=turn, results=results):
                return e.ResultsStored(await journal.record_results(turn, results))
            case _:
                assert_never(command)

    def _appended(self, stored: Turn | End, ours: bool) -> e.Event:
        """What a create says: ours, or another's that is adopted if it fits the chain."""
        fault = "" if ours else misfit(self.state, stored)
        if fault:
            return e.JournalBroken(
                f"{fault} Only the operator may write AgentTurns. Create the task again under a new name."
            )
        return e.EndStored(stored) if isinstance(stored, End) else e.TurnStored(stored)

    async def _in_sandbox(
        self,
        command: c.PrepareSandbox
        | c.AwaitSandbox
        | c.RunCall
        | c.InterruptCall
        | c.CheckFile
        | c.TakePatch
        | c.RemoveSandbox,
    ) -> e.Event:
        sandbox = self._out.sandbox
        match command:
            case c.PrepareSandbox():
                return await self._prepare(command)
            case c.AwaitSandbox(ref):
                await sandbox.changed(ref)
                return e.SandboxChanged()
            case c.RunCall(order):
                return e.CallEnded(await sandbox.run(order))
            case c.InterruptCall():
                return await self._interrupt(command)
            case c.CheckFile(key, path, before):
                return e.FileChecked(key, await sandbox.digest(path) == before)
            case c.TakePatch():
                return e.PatchTaken(await sandbox.patch())
            case c.RemoveSandbox():
                await sandbox.remove()
                return e.SandboxRemoved()
            case _:
                assert_never(command)

    async def _prepare(self, command: c.PrepareSandbox) -> e.Event:
        found = await self._out.sandbox.prepare(self.state.config, command.sandbox)
        match found:
            case SandboxReady(ref):
                return e.SandboxAnswered(ref)
            case SandboxPending(reason, message, hopeless):
                return e.SandboxWaited(reason, message, self._out.clock.now(), hopeless)
            case SandboxGone(message):
                return e.SandboxVanished(command.sandbox.generation, message)
            case _:
                assert_never(found)

    async def _interrupt(self, command: c.InterruptCall) -> e.Event:
        """End a call; what cannot be learned in time is unknown, for a stop must not hang."""
        key = command.order.key
        if not command.asked:
            return e.CallInterrupted(key, None)
        try:
            async with asyncio.timeout(INTERRUPT_WITHIN_S):
                return e.CallInterrupted(key, await self._out.sandbox.interrupt(command.order))
        except (TimeoutError, SandboxAway, SandboxRefused) as error:
            text = f"[outcome unknown] The task ended before the sandbox said how this call ended: {error}"
            return e.CallInterrupted(key, Receipt(key, Outcome.UNKNOWN, text))
