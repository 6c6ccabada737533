"""How fast loops may begin, so that hundreds that go on together flood nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

BURST = 5
"""So many begin at once after a quiet time: a few new tasks are not held up at all."""
PER_SECOND = 30.0
"""And then so many a second: 200 tasks take 6.5 s. Each loop that begins sends the model a request,
so a second sees 35 of them; when an API server that had stopped answers again, those under way
arrive together, which adds AT_ONCE."""
AT_ONCE = 12
"""Claims under way at the same time; each is some ten requests to the API server, one by one."""


class Pacer:
    """Lets begin in the order of asking: some at once, then so many a second.

    A process that stood still does not make up for it: what was not used is lost beyond `burst`.
    Time is that of the running event loop.
    """

    def __init__(
        self, burst: int = BURST, per_second: float = PER_SECOND, at_once: int = AT_ONCE
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._counted_at = float("-inf")
        self._order = asyncio.Lock()
        self._places = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep a place until the block ends."""
        async with self._places:
            await self._wait()
            yield

    async def _wait(self) -> None:
        async with self._order:
            self._count()
            if self._left < 1:
                await asyncio.sleep((1 - self._left) / self._per_second)
                self._count()
            self._left -= 1

    def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        earned = (now - self._counted_at) * self._per_second
        self._left = min(self._burst, self._left + earned)
        self._counted_at = now
