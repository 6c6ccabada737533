"""The one place where the loop meets the outside: have a wish performed, note the fact, fold it.

A runner owns one claimed task from its claim to its end. It decides nothing:
`core.loop.decide` says what should be under way, and each end of something
under way is an event that goes through `core.evolve.evolve`. Whatever kills
this process, the next owner begins with the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime

from ratchet.core import commands as c
from ratchet.core import events as e
from ratchet.core.evolve import begin, evolve
from ratchet.core.loop import decide, wake
from ratchet.core.state import State
from ratchet.core.status import Summary, summarise
from ratchet.ports import Claim
from ratchet.shell.performing import Loop, Outside, Performer
from ratchet.shell.summaries import Summaries

Listener = Callable[[e.Event, State], None]
"""Loop of each event after it was folded, with the state that it led to. Must be quick."""


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
        self._clock = outside.clock
        self._listeners = listeners
        self._inbox: asyncio.Queue[tuple[c.Command | None, e.Event | None]] = asyncio.Queue()
        self._under_way: dict[c.Command, asyncio.Task[None]] = {}
        self._dropped: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None
        self._summaries = Summaries()
        self._summary_write: asyncio.Task[None] | None = None
        self._timer: asyncio.Task[None] | None = None
        self._timer_at: datetime | None = None
        self._performer = Performer(
            claim, outside, Loop(lambda: self.state, self._fresh_summary, self.notify)
        )
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
                now = self._clock.now()
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
        place = self._performer.places.held
        if place is None or any(
            isinstance(command, c.MarkAsking | c.Ask) for command in (*wishes, *self._under_way)
        ):
            return False
        self._performer.places.give_back()
        self._fold(None, e.AdmissionLapsed(place.turn, place.attempt))
        return True

    async def _perform(self, command: c.Command) -> None:
        self._inbox.put_nowait((command, await self._performer.perform(command)))

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
        await self._clock.sleep(max(0.0, (at - now).total_seconds()))
        self._timer_at = self._timer = None
        self._inbox.put_nowait((None, None))

    async def _stop(self) -> None:
        for task in (*self._under_way.values(), self._timer, self._summary_write):
            if task is not None:
                self._drop(task)
        self._under_way.clear()
        self._performer.places.give_back()
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
        event = await self._performer.summarise()
        if isinstance(event, e.JournalFailed):
            self._summaries.failed()
        self._summary_write = None
        self._inbox.put_nowait((None, event))

    def _fresh_summary(self) -> Summary:
        now = self._clock.now()
        summary = summarise(self.state, now)
        self._summaries.see(summary, now)
        self._summaries.written(now)
        return summary
