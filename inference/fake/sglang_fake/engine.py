"""Slots, the queue, the token pool, aborts, disconnects and pauses, as SGLang's scheduler shows
them to its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from sglang_fake.settings import Settings


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
    """One request in flight. `ended` resolves when it is aborted or its client is found gone.

    SGLang looks after the client of a request that is not streamed only every 4 s, counted from
    the request's start (recorded); `poll_s` is that period. `tokens` is what it takes of the pool.
    """

    def __init__(
        self, rid: str, tokens: int, client_gone: Callable[[], bool], poll_s: float
    ) -> None:
        self.rid = rid
        self.tokens = tokens
        self._client_gone = client_gone
        self._poll_s = poll_s
        self._loop = asyncio.get_running_loop()
        self.started = self._loop.time()
        self.ended: asyncio.Future[Ended] = self._loop.create_future()
        self._poll = self._loop.call_at(self.started + poll_s, self._look, 1)
        self._work: _Work | None = None
        self.frozen = False

    def end(self, why: Ended) -> None:
        """End the job; the first reason stays."""
        if not self.ended.done():
            self.ended.set_result(why)
            if self._work is not None:
                self._work.stop()

    def close(self) -> None:
        """Stop looking after the client."""
        self._poll.cancel()

    def _look(self, times: int) -> None:
        if self._client_gone():
            self.end(Ended.GONE)
        else:
            after = self.started + (times + 1) * self._poll_s
            self._poll = self._loop.call_at(after, self._look, times + 1)

    async def work(self, seconds: float) -> Ended | None:
        """Let the model work for `seconds`; the reason if the job ended before. Time in which the
        job is frozen does not count."""
        if (seconds > 0 or self.frozen) and not self.ended.done():
            self._work = _Work(self._loop, seconds)
            if not self.frozen:
                self._work.go()
            await self._work.done
            self._work = None
        return self.ended.result() if self.ended.done() else None

    def freeze(self) -> None:
        """The engine stands still."""
        self.frozen = True
        if self._work is not None:
            self._work.hold()

    def thaw(self) -> None:
        """The engine goes on."""
        self.frozen = False
        if self._work is not None:
            self._work.go()


class _Work:
    """Time that the model needs, with pauses."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._left = seconds
        self._timer: asyncio.TimerHandle | None = None

    def go(self) -> None:
        self._timer = self._loop.call_later(self._left, self.stop)

    def hold(self) -> None:
        if self._timer is not None:
            self._left = max(0.0, self._timer.when() - self._loop.time())
            self._timer.cancel()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.done.done():
            self.done.set_result(None)


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
        self._queue: dict[Job, asyncio.Future[None]] = {}
        self._held: dict[Job, asyncio.Future[None]] = {}

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
            self._held[job] = asyncio.get_running_loop().create_future()
        elif not self._queue and self._fits(job):
            self._run(job)
        elif self._room:
            self._queue[job] = asyncio.get_running_loop().create_future()
        else:
            raise QueueFull
        self._jobs[job.rid] = job

    async def turn_of(self, job: Job) -> Ended | None:
        """Wait until the job runs; the reason if it ended while it waited. Raises QueueFull."""
        place = self._held.get(job) or self._queue.get(job)
        if place is not None:
            both: set[asyncio.Future[Any]] = {place, job.ended}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if place.done():
                place.result()
        return job.ended.result() if job.ended.done() else None

    def leave(self, job: Job) -> None:
        """Free the job's slot or place, and let the next one run."""
        job.close()
        self._held.pop(job, None)
        self._queue.pop(job, None)
        if job in self._running:
            self._running.remove(job)
            self._used -= job.tokens
        if self._jobs.get(job.rid) is job:
            del self._jobs[job.rid]
        self._advance()

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
        for job, place in held.items():
            if self._room or (not self._queue and self._fits(job)):
                self._queue[job] = place
                self._advance()
            else:
                place.set_exception(QueueFull())

    @property
    def _room(self) -> bool:
        most = self._settings.max_queued
        return most is None or len(self._queue) < most

    def _fits(self, job: Job) -> bool:
        if len(self._running) >= self._settings.max_running:
            return False
        free = self._settings.max_total_tokens - self._used
        return not self._running or job.tokens <= free

    def _run(self, job: Job) -> None:
        self._running.add(job)
        self._used += job.tokens

    def _advance(self) -> None:
        while self._queue and not self.stands_still:
            following, place = next(iter(self._queue.items()))
            if not self._fits(following):
                return
            del self._queue[following]
            self._run(following)
            if not place.done():
                place.set_result(None)
