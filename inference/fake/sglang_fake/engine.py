"""Slots, the queue, the token pool, aborts, disconnects and pauses, as SGLang's scheduler shows
them to its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum

from sglang_fake.settings import Settings

# Recorded: cancel/client_disconnect, 0.05 to 0.07 s.
_STREAM_POLL_S = 0.05


class Ended(StrEnum):
    """Why a job stopped before it had its answer."""

    ABORTED = "aborted"
    GONE = "disconnected"
    LOST = "failed"


class QueueFull(Exception):
    """No slot and no place in the queue."""


class DuplicateRid(Exception):
    """A request of the same rid is still in flight."""


class Job:
    """One request in flight, of `tokens` in the pool, on which the model works for `seconds`.

    `over` resolves when its work is done or it has ended before; `why` says the latter. SGLang
    looks after the client of a request that is not streamed only every 4 s, counted from the
    request's start (recorded); `poll_s` is that period.

    The client of a stream that runs is looked after every 50 ms.

    A job that `frees_slot` gives its place away the moment its work is done, and not only when its
    answer is sent: so slots are never idle for the time that this server needs to answer.
    """

    def __init__(
        self,
        rid: str,
        tokens: int,
        seconds: float,
        frees_slot: bool,
        client_gone: Callable[[], bool],
        poll_s: float,
        streams: bool = False,
    ) -> None:
        self.rid = rid
        self.tokens = tokens
        self.frees_slot = frees_slot and seconds > 0
        self.began: float | None = None
        self.why: Ended | None = None
        self._seconds = seconds
        self._streams = streams
        self._client_gone = client_gone
        self._poll_s = poll_s
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] | None = None
        self._started = self._loop.time()
        self._poll = self._loop.call_at(self._started + poll_s, self._look, 1)
        self._timer: asyncio.TimerHandle | None = None
        self._done: Callable[[float], None] | None = None
        self._left: float | None = None

    def begin(self, at: float, done: Callable[[float], None]) -> None:
        """Start the work, counted from `at`; `done` gets the moment at which it was done."""
        self.began, self._done = at, done
        if self._streams:
            self._poll.cancel()
            self._started, self._poll_s = self._loop.time(), min(self._poll_s, _STREAM_POLL_S)
            self._poll = self._loop.call_later(self._poll_s, self._look, 1)
        self._work_until(at + self._seconds)

    def go_on(self) -> asyncio.Future[None]:
        """A new `over`, which resolves as soon as the engine does not stand still."""
        self.over, self._done = self._loop.create_future(), None
        if self.why is None and self._left is None:
            self._work_until(self._loop.time())
        elif self.why is not None:
            self.over.set_result(None)
        return self.over

    def end(self, why: Ended) -> None:
        """End the job; the first reason stays."""
        if self.why is None:
            self.why = why
            self._wake(self.over)
            if self._ended is not None:
                self._wake(self._ended)

    async def ended(self) -> Ended:
        """Wait until it is aborted or its client is found gone."""
        if self.why is None:
            self._ended = self._loop.create_future()
            await self._ended
        assert self.why is not None
        return self.why

    def close(self) -> None:
        """Forget its timers, and what would keep it in memory."""
        self._done = None
        self._poll.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def freeze(self) -> None:
        """The engine stands still: time does not count."""
        when = self._timer.when() if self._timer is not None else 0.0
        self._left = max(0.0, when - self._loop.time())
        if self._timer is not None:
            self._timer.cancel()

    def thaw(self) -> None:
        """The engine goes on."""
        left, self._left = self._left, None
        if left is not None and not self.over.done():
            self._work_until(self._loop.time() + left)

    @property
    def worked_s(self) -> float:
        """How long the model has worked on it."""
        return 0.0 if self.began is None else self._loop.time() - self.began

    def _work_until(self, when: float) -> None:
        if when <= self._loop.time() and not self.frees_slot:
            self._wake(self.over)
        else:
            self._timer = self._loop.call_at(when, self._finish, when)

    def _finish(self, when: float) -> None:
        self._wake(self.over)
        if self._done is not None and self.frees_slot:
            self._done(when)

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def _look(self, times: int) -> None:
        if self._client_gone():
            self.end(Ended.GONE)
        else:
            after = self._started + (times + 1) * self._poll_s
            self._poll = self._loop.call_at(after, self._look, times + 1)


class Engine:
    """Running and waiting jobs. First come, first served; a job whose tokens do not fit into the
    pool beside the running ones waits, and so do those behind it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.paused = False
        self.dead = False
        self._jobs: dict[str, Job] = {}
        self._running: set[Job] = set()
        self._used = 0
        self._queue: dict[Job, None] = {}
        self._held: dict[Job, None] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def used_tokens(self) -> int:
        """Tokens of the running jobs' prompts."""
        return self._used

    @property
    def waiting_tokens(self) -> int:
        return sum(job.tokens for job in self._queue)

    @property
    def in_flight(self) -> int:
        return len(self._jobs)

    @property
    def stands_still(self) -> bool:
        """Whether nothing gets on: paused, or dead."""
        return self.paused or self.dead

    def abort(self, rid: str, every: bool) -> None:
        """End the job of exactly this rid, or every one, so long after as SGLang was recorded to
        need. Unknown rids are no error."""
        for job in list(self._jobs.values()) if every else [self._jobs.get(rid)]:
            if job is None or self.dead:
                continue
            running = job in self._running
            late = self._settings.abort_running_s if running else self._settings.abort_waiting_s
            asyncio.get_running_loop().call_later(late, job.end, Ended.ABORTED)

    def lose(self) -> None:
        """End every job at once: the server is gone."""
        for job in list(self._jobs.values()):
            job.end(Ended.LOST)

    def admit(self, job: Job) -> None:
        """Take a job in, to run or to wait. Raises DuplicateRid or QueueFull."""
        if job.rid in self._jobs:
            raise DuplicateRid
        if self.stands_still:
            # Not recorded. While paused, SGLang holds requests back before its scheduler sees
            # them (sglang 0.5.23, managers/tokenizer_manager.py:938), so no load shows them.
            self._held[job] = None
        elif not self._queue and self._fits(job):
            self._run(job, asyncio.get_running_loop().time())
        elif self._room:
            self._queue[job] = None
        else:
            raise QueueFull
        self._jobs[job.rid] = job

    def leave(self, job: Job) -> None:
        """Forget the job; its slot or place is free."""
        job.close()
        self._held.pop(job, None)
        self._queue.pop(job, None)
        if self._jobs.get(job.rid) is job:
            del self._jobs[job.rid]
        self._free(job, asyncio.get_running_loop().time())

    def pause(self) -> None:
        """Stand still until `resume`: running jobs keep their slots, none ends by itself."""
        self.paused = True
        self._freeze()

    def die(self) -> None:
        """Stand still for good."""
        self.dead = True
        self._freeze()

    def _freeze(self) -> None:
        for job in self._running:
            job.freeze()

    def resume(self) -> None:
        """Go on; requests that came meanwhile are let in, in order."""
        self.paused = False
        if self.dead:
            return
        for job in self._running:
            job.thaw()
        held, self._held = self._held, {}
        for job in held:
            if self._room or (not self._queue and self._fits(job)):
                self._queue[job] = None
                self._advance(asyncio.get_running_loop().time())
            else:
                job.over.set_exception(QueueFull())

    @property
    def _room(self) -> bool:
        most = self._settings.max_queued
        return most is None or len(self._queue) < most

    def _fits(self, job: Job) -> bool:
        if len(self._running) >= self._settings.max_running:
            return False
        free = self._settings.max_total_tokens - self._used
        return not self._running or job.tokens <= free

    def _run(self, job: Job, at: float) -> None:
        self._running.add(job)
        self._used += job.tokens
        job.begin(at, lambda when: self._free(job, when))

    def _free(self, job: Job, at: float) -> None:
        if job in self._running:
            self._running.remove(job)
            self._used -= job.tokens
        self._advance(at)

    def _advance(self, at: float) -> None:
        """Let those in that fit; their time counts from `at`."""
        while self._queue and not self.stands_still:
            following = next(iter(self._queue))
            if not self._fits(following):
                return
            del self._queue[following]
            self._run(following, at)
