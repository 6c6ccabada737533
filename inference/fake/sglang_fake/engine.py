"""Slots, the queue, aborts and disconnects, as SGLang's scheduler shows them to its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Any


class Ended(StrEnum):
    """Why a job stopped before it had its answer."""

    ABORTED = "aborted"
    GONE = "disconnected"


class QueueFull(Exception):
    """No slot and no place in the queue."""


class DuplicateRid(Exception):
    """A request of the same rid is still in flight."""


class Job:
    """One request in flight. `ended` resolves when it is aborted or its client is found gone.

    SGLang looks after the client of a non-streamed request only every 4 s, counted from the
    request's start (recorded); `poll_s` is that period.
    """

    def __init__(self, rid: str, client_gone: Callable[[], bool], poll_s: float) -> None:
        self.rid = rid
        self._client_gone = client_gone
        self._poll_s = poll_s
        self._loop = asyncio.get_running_loop()
        self.started = self._loop.time()
        self.ended: asyncio.Future[Ended] = self._loop.create_future()
        self._timer = self._loop.call_at(self.started + poll_s, self._look, 1)

    def end(self, why: Ended) -> None:
        """End the job; the first reason stays."""
        if not self.ended.done():
            self.ended.set_result(why)

    def close(self) -> None:
        """Stop looking after the client."""
        self._timer.cancel()

    def _look(self, times: int) -> None:
        if self._client_gone():
            self.end(Ended.GONE)
        else:
            after = self.started + (times + 1) * self._poll_s
            self._timer = self._loop.call_at(after, self._look, times + 1)

    async def spend(self, seconds: float) -> Ended | None:
        """Let the model work for `seconds`; the reason if the job ended before."""
        if seconds > 0 and not self.ended.done():
            await asyncio.wait({self.ended}, timeout=seconds)
        return self.ended.result() if self.ended.done() else None


class Engine:
    """Running and waiting jobs. `max_queued` None means a queue without a bound."""

    def __init__(self, max_running: int, max_queued: int | None) -> None:
        self.max_running = max_running
        self._max_queued = max_queued
        self._jobs: dict[str, Job] = {}
        self._running: set[Job] = set()
        self._queue: dict[Job, asyncio.Future[None]] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        return len(self._jobs)

    def abort(self, rid: str, every: bool) -> None:
        """End the job of exactly this rid, or every one. Unknown rids are no error."""
        for job in list(self._jobs.values()) if every else [self._jobs.get(rid)]:
            if job is not None:
                job.end(Ended.ABORTED)

    def admit(self, job: Job) -> None:
        """Take a job in, to run or to wait. Raises DuplicateRid or QueueFull."""
        if job.rid in self._jobs:
            raise DuplicateRid
        if len(self._running) < self.max_running:
            self._running.add(job)
        elif self._max_queued is None or len(self._queue) < self._max_queued:
            self._queue[job] = asyncio.get_running_loop().create_future()
        else:
            raise QueueFull
        self._jobs[job.rid] = job

    async def turn_of(self, job: Job) -> Ended | None:
        """Wait until the job runs; the reason if it ended while it waited."""
        place = self._queue.get(job)
        if place is not None:
            both: set[asyncio.Future[Any]] = {place, job.ended}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return job.ended.result() if job.ended.done() else None

    def leave(self, job: Job) -> None:
        """Free the job's slot or place, and let the next one run."""
        job.close()
        self._queue.pop(job, None)
        self._running.discard(job)
        if self._jobs.get(job.rid) is job:
            del self._jobs[job.rid]
        while self._queue and len(self._running) < self.max_running:
            following, place = next(iter(self._queue.items()))
            del self._queue[following]
            self._running.add(following)
            place.set_result(None)
