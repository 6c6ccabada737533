"""The one place where the loop meets the outside: perform a wish, note the fact, fold it.

A runner owns one claimed task from its claim to its end. It decides nothing:
`core.loop.decide` says what should be under way, and each end of something
under way is an event that goes through `core.evolve.evolve`. Whatever kills
this process, the next owner begins with the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from ratchet.core import commands as c
from ratchet.core import events as e
from ratchet.core.evolve import begin, evolve, misfit
from ratchet.core.facts import CallOrder
from ratchet.core.keys import request_id
from ratchet.core.loop import decide, wake
from ratchet.core.records import End, Outcome, Turn
from ratchet.core.replies import ModelFailure
from ratchet.core.state import State, calls_before
from ratchet.core.status import Summary, summarise
from ratchet.core.verdict import ArgumentCheck, judge
from ratchet.ports import (
    Claim,
    Clock,
    Gate,
    Journal,
    JournalAway,
    JournalRefused,
    Model,
    ModelRequest,
    OwnershipLost,
    Receipt,
    RuleCheck,
    Sandbox,
    SandboxAway,
    SandboxGone,
    SandboxPending,
    SandboxReady,
    SandboxRefused,
)
from ratchet.shell.places import Places
from ratchet.shell.refusals import sandbox_away, sandbox_refused
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
    gate: Gate
    check: ArgumentCheck
    rules: RuleCheck
    random: Callable[[], float]
    """A number in [0, 1), for jitter."""


class Runner:
    """Runs one claimed task. Call `run` once; `notify` may be called at any time.

    What a port raises beyond its error tree is a fault of ours: `run` raises it too.
    """

    def __init__(
        self,
        claim: Claim,
        outside: Outside,
        listeners: tuple[Listener, ...] = (),
        priority: int = 0,
    ) -> None:
        self._task = claim.task
        self._out = outside
        self._listeners = listeners
        self._inbox: asyncio.Queue[tuple[c.Command | None, e.Event | None]] = asyncio.Queue()
        self._under_way: dict[c.Command, asyncio.Task[None]] = {}
        self._dropped: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None
        self._summaries = Summaries()
        self._summary_write: asyncio.Task[None] | None = None
        self._status = asyncio.Lock()
        self._places = Places(outside.gate, claim.task, claim.started)
        self._allowed: set[str] = set()
        """Keys of calls that the rules have let pass: what may have run is not denied later."""
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
            lost_tokens=claim.lost_tokens,
            priority=priority,
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
                self._reconcile(now)
                self._summarise(now)
                self._set_timer(self._next_time(now), now)
                await self._take_events()
            return self.state
        finally:
            await self._stop()

    # --- bookkeeping -----------------------------------------------------------------------------

    def _reconcile(self, now: datetime) -> None:
        """Have exactly the wishes under way, and what cannot be interrupted."""
        wishes = decide(self.state, now)
        if self._withdraw(wishes):
            wishes = decide(self.state, now)
        if self._give_back(wishes):
            wishes = decide(self.state, now)
        for command in wishes:
            if command not in self._under_way:
                self._under_way[command] = self._start(self._perform(command))

    def _withdraw(self, wishes: tuple[c.Command, ...]) -> bool:
        """Drop what is wished for no longer; whether an event came of it."""
        events: list[e.Event] = []
        for command, task in list(self._under_way.items()):
            if command.interruptible and command not in wishes:
                del self._under_way[command]
                self._drop(task)
                if isinstance(command, c.Ask):
                    tokens = command.request.tokens
                    events.append(e.AskWithdrawn(command.turn, command.attempt, tokens))
                elif isinstance(command, c.Admit):
                    events.append(e.AdmissionLapsed(command.turn, command.attempt))
        for event in events:
            self._fold(None, event)
        return bool(events)

    def _give_back(self, wishes: tuple[c.Command, ...]) -> bool:
        """Give a place back that nobody is about to use; whether an event came of it.

        One is used, or about to be, while the mark or the request is wished for or under way.
        """
        place = self._places.held
        if place is None or any(
            isinstance(command, c.MarkAsking | c.Ask) for command in (*wishes, *self._under_way)
        ):
            return False
        self._places.give_back()
        self._fold(None, e.AdmissionLapsed(place.turn, place.attempt))
        return True

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        """Wake `run` for what nobody foresaw, so that it is raised there and not forgotten here."""
        if not task.cancelled() and (crash := task.exception()) is not None:
            self._crash = self._crash or crash
            self._inbox.put_nowait((None, None))

    def _drop(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._dropped.add(task)
        task.add_done_callback(self._dropped.discard)

    async def _take_events(self) -> None:
        """Wait for one event, and fold all that are there."""
        self._fold(*await self._inbox.get())
        while not self._inbox.empty():
            self._fold(*self._inbox.get_nowait())
        if self._crash is not None:
            raise self._crash

    def _fold(self, command: c.Command | None, event: e.Event | None) -> None:
        if command is not None:
            self._under_way.pop(command, None)
        if event is None:
            return
        self.state = evolve(self.state, event)
        for listener in self._listeners:
            listener(event, self.state)

    def _next_time(self, now: datetime) -> datetime | None:
        due = self._summaries.due(now)
        if due is not None and self.state.journal_backoff.blocks(now):
            due = self.state.journal_backoff.until
        if self._summary_write is not None or self._closing or self._about_to_ask:
            due = None
        times = (wake(self.state, now), due)
        return min((moment for moment in times if moment is not None), default=None)

    @property
    def _closing(self) -> bool:
        """Whether the next status is the final one, which is a command of its own."""
        return self.state.over or self.state.end is not None or bool(self.state.broken)

    @property
    def _about_to_ask(self) -> bool:
        """Whether the mark of a request, which carries the summary along, is written soon."""
        return any(
            isinstance(command, c.MarkAsking)
            or (isinstance(command, c.Admit) and self.state.queue is None)
            for command in self._under_way
        )

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
        self._places.give_back()
        if self._dropped:
            await asyncio.gather(*self._dropped, return_exceptions=True)

    # --- the status ------------------------------------------------------------------------------

    def _summarise(self, now: datetime) -> None:
        """Write the summary when it is due, at most one write at a time."""
        if self._closing or self._about_to_ask:
            return
        self._summaries.see(summarise(self.state, now), now)
        if self._summary_write is not None:
            return
        due = self._summaries.due(now)
        if due is not None and due <= now and not self.state.journal_backoff.blocks(now):
            self._summary_write = self._start(self._write_summary())
            self._summaries.written(now)

    async def _write_summary(self) -> None:
        event = await self._put_summary()
        self._summary_write = None
        self._inbox.put_nowait((None, event))

    def _fresh_summary(self) -> Summary:
        now = self._out.clock.now()
        summary = summarise(self.state, now)
        self._summaries.see(summary, now)
        self._summaries.written(now)
        return summary

    async def _put_summary(self) -> e.Event | None:
        """Success is no event of its own."""
        try:
            async with self._status:
                await self._out.journal.summarise(self._fresh_summary())
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
        event: e.Event | None
        try:
            event = await self._do(command)
        except JournalAway:
            event = e.JournalFailed(now())
        except OwnershipLost:
            event = e.OwnerLost()
        except JournalRefused as refused:
            if isinstance(command, c.Conclude):
                raise  # nothing is left to be said: whoever started us may try again later
            event = e.JournalBroken(str(refused))
        except SandboxAway as away:
            event = sandbox_away(command, str(away), now(), away.reason)
        except SandboxRefused as refusal:
            event = sandbox_refused(command, refusal, self.state, now())
        self._inbox.put_nowait((command, event))

    async def _do(self, command: c.Command) -> e.Event | None:
        match command:
            case c.Ask():
                return await self._ask(command)
            case c.Admit():
                return await self._admit(command)
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

    async def _admit(self, command: c.Admit) -> e.Event:
        def told(message: str, place: int) -> None:
            now = self._out.clock.now()
            event = e.Queued(command.turn, command.attempt, message, place, now)
            self._inbox.put_nowait((None, event))

        away = await self._places.enter(
            command, self.state.config.endpoints[command.endpoint], told
        )
        if away is None:
            return e.Admitted(command.turn, command.attempt, command.endpoint)
        return e.EndpointAway(command.endpoint, away.message, away.until, self._out.clock.now())

    async def _ask(self, command: c.Ask) -> e.Event:
        state, task = self.state, self._task
        config, model = state.config, state.model
        request = ModelRequest(
            config=model,
            namespace=task.namespace,
            body=command.request.body,
            rid=request_id(task.uid, command.turn, command.attempt, state.epoch),
            routing_key=task.uid,
        )
        with self._places.used() as use:
            began = self._out.clock.now()
            raw = await self._out.model.ask(request)
            use.ended(raw, (self._out.clock.now() - began).total_seconds())
        if isinstance(raw, ModelFailure):
            now, jitter = self._out.clock.now(), self._out.random()
            return e.AskFailed(command.turn, command.attempt, raw, now, jitter)
        reply = judge(
            raw,
            task_uid=task.uid,
            turn=command.turn,
            attempt=command.attempt,
            endpoint=model.known_as,
            tools=config.tools,
            check=self._out.check,
        )
        return e.Replied(command.turn, command.digest, reply)

    async def _store(
        self, command: c.StoreTurn | c.StoreEnd | c.StoreRerun | c.StoreResults
    ) -> e.Event | None:
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

    def _appended(self, stored: Turn | End, ours: bool) -> e.Event | None:
        """What a create says: ours, or another's that is adopted if it fits the chain."""
        if stored.epoch > self.state.epoch:
            return e.OwnerLost()
        fault = "" if ours or self._knows(stored) else misfit(self.state, stored)
        if fault:
            return e.JournalBroken(
                f"{fault} Only the operator may write AgentTurns. Create the task again under a new name."
            )
        return e.EndStored(stored) if isinstance(stored, End) else e.TurnStored(stored)

    def _knows(self, stored: Turn | End) -> bool:
        """Whether two writes under one number brought the same record, and one was told already."""
        known: list[Turn | End] = [*self.state.turns]
        if self.state.end is not None:
            known.append(self.state.end)
        told = {(record.number, record.previous) for record in known}
        return (stored.number, stored.previous) in told

    async def _in_sandbox(
        self,
        command: c.PrepareSandbox
        | c.AwaitSandbox
        | c.LearnNetwork
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
            case c.LearnNetwork(generation):
                return e.NetworkLearned(generation, await sandbox.network())
            case c.RunCall(order):
                return e.CallEnded(await self._denied(order) or await sandbox.run(order))
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

    async def _denied(self, order: CallOrder) -> Receipt | None:
        """The end of a call that a rule of the task denies; None if it may run.

        One of an owner before us may have run all the same, since what cannot be decided is denied:
        the sandbox is asked, and withdraws it if it never began.
        """
        state = self.state
        turn = state.open_turn
        if not state.config.rules or order.key in self._allowed or turn is None:
            return None
        counts = calls_before(state, order.key)
        text = await self._out.rules(
            state.config.rules, order.tool, order.arguments, counts, turn.number
        )
        if text is None:
            self._allowed.add(order.key)
            return None
        known = None
        if turn.epoch != state.epoch or turn.reruns:
            known = await self._out.sandbox.interrupt(order)
        return known or Receipt(order.key, Outcome.DENIED, text)

    async def _prepare(self, command: c.PrepareSandbox) -> e.Event:
        found = await self._out.sandbox.prepare(self.state.config, command.sandbox)
        match found:
            case SandboxReady(ref):
                return e.SandboxAnswered(ref)
            case SandboxPending(reason, message, hopeless):
                return e.SandboxWaited(reason, message, self._out.clock.now(), hopeless)
            case SandboxGone(message, reason):
                return e.SandboxVanished(command.sandbox.generation, message, reason)
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
            if isinstance(error, SandboxRefused) and error.code == "stale_epoch":
                return e.OwnerLost()
            text = f"[outcome unknown] The task ended before the sandbox said how this call ended: {error}"
            return e.CallInterrupted(key, Receipt(key, Outcome.UNKNOWN, text))
