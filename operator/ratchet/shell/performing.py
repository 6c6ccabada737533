"""What a wish is made of: one call of a port, and the fact that came of it.

Everything that a port may raise becomes an event here; what is left is a fault of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from ratchet.core import commands as c
from ratchet.core import events as e
from ratchet.core.evolve import misfit
from ratchet.core.facts import CallOrder
from ratchet.core.keys import request_id
from ratchet.core.records import End, Outcome, Turn
from ratchet.core.replies import ModelFailure
from ratchet.core.routing import patience
from ratchet.core.state import State, calls_before
from ratchet.core.status import Summary
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


@dataclass(frozen=True, slots=True)
class Loop:
    """The loop, as performing sees it."""

    state: Callable[[], State]
    """What is known now."""
    fresh_summary: Callable[[], Summary]
    """The summary to write now; it counts as written."""
    event: Callable[[e.Event], None]
    """Something that is no end of a wish."""


class Performer:
    """Performs the wishes of one claimed task."""

    def __init__(self, claim: Claim, outside: Outside, loop: Loop) -> None:
        self._task = claim.task
        self._out = outside
        self._loop = loop
        self._status = asyncio.Lock()
        self.places = Places(outside.gate, claim.task, claim.started)
        self._allowed: set[str] = set()
        """Keys of calls that the rules have let pass: what may have run is not denied later."""

    async def summarise(self) -> e.Event | None:
        """Write the ordinary status. Success is no event of its own."""
        try:
            async with self._status:
                await self._out.journal.summarise(self._loop.fresh_summary())
        except JournalAway:
            return e.JournalFailed(self._out.clock.now())
        except OwnershipLost:
            return e.OwnerLost()
        except JournalRefused as refused:
            return e.JournalBroken(str(refused))
        return None

    async def perform(self, command: c.Command) -> e.Event | None:
        """Do what is wished for, and say what came of it."""
        now = self._out.clock.now
        try:
            return await self._do(command)
        except JournalAway:
            return e.JournalFailed(now())
        except OwnershipLost:
            return e.OwnerLost()
        except JournalRefused as refused:
            if isinstance(command, c.Conclude):
                raise  # nothing is left to be said: whoever started us may try again later
            return e.JournalBroken(str(refused))
        except SandboxAway as away:
            return sandbox_away(command, str(away), now(), away.reason)
        except SandboxRefused as refusal:
            return sandbox_refused(command, refusal, self._loop.state(), now())

    async def _do(self, command: c.Command) -> e.Event | None:
        match command:
            case c.Ask():
                return await self._ask(command)
            case c.Admit():
                return await self._admit(command)
            case c.MarkAsking(asking):
                async with self._status:
                    await self._out.journal.mark_asking(asking, self._loop.fresh_summary())
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
                    await self._out.journal.summarise(self._loop.fresh_summary())
                return e.Concluded()
            case _:
                return await self._in_sandbox(command)

    async def _admit(self, command: c.Admit) -> e.Event:
        waiting = asyncio.current_task()

        def told(message: str, place: int) -> None:
            if waiting is not None and waiting.cancelling():
                return  # it has left the queue already, which the gate learns in a moment
            now = self._out.clock.now()
            event = e.Queued(command.turn, command.attempt, message, place, now)
            self._loop.event(event)

        config = self._loop.state().config
        patience_s = patience(config, command.endpoint)
        model = config.endpoints[command.endpoint]
        away = await self.places.enter(command, model, told, patience_s)
        if away is None:
            return e.Admitted(command.turn, command.attempt, command.endpoint)
        now = self._out.clock.now()
        return e.EndpointAway(command.endpoint, away.message, away.until, now, away.full)

    async def _ask(self, command: c.Ask) -> e.Event:
        state, task = self._loop.state(), self._task
        config, model = state.config, state.model
        request = ModelRequest(
            config=model,
            namespace=task.namespace,
            body=command.request.body,
            rid=request_id(task.uid, command.turn, command.attempt, state.epoch),
            routing_key=task.uid,
        )
        with self.places.used() as use:
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
        if stored.epoch > self._loop.state().epoch:
            return e.OwnerLost()
        fault = "" if ours or self._knows(stored) else misfit(self._loop.state(), stored)
        if fault:
            return e.JournalBroken(
                f"{fault} Only the operator may write AgentTurns. Create the task again under a new name."
            )
        return e.EndStored(stored) if isinstance(stored, End) else e.TurnStored(stored)

    def _knows(self, stored: Turn | End) -> bool:
        """Whether two writes under one number brought the same record, and one was told already."""
        state = self._loop.state()
        known: list[Turn | End] = [*state.turns, *([state.end] if state.end is not None else [])]
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
        state = self._loop.state()
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
        found = await self._out.sandbox.prepare(self._loop.state().config, command.sandbox)
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
