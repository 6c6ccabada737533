"""What an onlooker sees of a namespace's tasks and records, and when: a watch of our own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from ratchet.api import names
from ratchet.edges import kube

from tests.proof.upstream import Upstream

Object = dict[str, Any]
LINE_MAX = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Sight:
    """One change of a task or a record, at a time of the monotonic clock."""

    at: float
    task_uid: str
    epoch: int
    """Of the owner that wrote it, as far as it says so."""
    record: bool
    """Whether it is of the journal, and not of the task's status."""


@dataclass(slots=True)
class Sights:
    """Watches one namespace. Use as `async with`."""

    upstream: Upstream
    namespace: str
    tasks: dict[str, Object] = field(default_factory=dict)
    """By name, as last seen."""
    log: list[Sight] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _work: list[asyncio.Task[None]] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Sights:
        connector = aiohttp.TCPConnector(ssl=self.upstream.tls)
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=LINE_MAX)
        self._work = [
            asyncio.create_task(self._watch(kube.ours(names.TASK_PLURAL, self.namespace))),
            asyncio.create_task(self._watch(kube.turn(self.namespace))),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        assert self._session is not None
        await self._session.close()

    async def until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Wait until something holds of what was seen; False if it does not come to that."""
        try:
            async with asyncio.timeout(within_s):
                while not holds():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return holds()
        return True

    def resumed(self, task_uid: str, since: float, epoch: int = -1) -> float | None:
        """Seconds from `since` until a later owner than `epoch` wrote a record.

        Where it had no record to write any more, until it wrote the status. Without an epoch:
        until anybody did.
        """
        later = [
            sight
            for sight in self.log
            if sight.task_uid == task_uid and sight.at > since and sight.epoch > epoch
        ]
        records = [sight for sight in later if sight.record]
        return min((sight.at for sight in records or later), default=since) - since or None

    async def _watch(self, path: str) -> None:
        """Watch from the beginning, and again where the server ends it."""
        while True:
            try:
                async for event in self._events(path):
                    self._see(event)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)  # the API server may be what is disturbed

    async def _events(self, path: str) -> AsyncIterator[Object]:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        url = f"{self.upstream.url}{path}?watch=true"
        async with self._session.get(url, timeout=timeout) as answer:
            answer.raise_for_status()
            while line := await answer.content.readline():
                yield json.loads(line)

    def _see(self, event: Object) -> None:
        found: Object = event["object"]
        if event["type"] == "ERROR":
            return
        status = found.get("status") or {}
        if found["kind"] == names.TASK_KIND:
            uid, epoch = found["metadata"]["uid"], (status.get("owner") or {}).get("epoch", 0)
            self.tasks[found["metadata"]["name"]] = found
        else:
            uid = found["spec"]["taskRef"]["uid"]
            epoch = max(found["spec"]["epoch"], status.get("epoch") or 0)
        record = found["kind"] == names.TURN_KIND
        self.log.append(Sight(time.monotonic(), uid, epoch, record))
        self.changed.set()
