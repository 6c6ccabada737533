"""Virtual time: an event loop that jumps to its next timer when nothing else is to be done."""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
"""What the virtual clock shows when a loop starts."""


class _Jump(selectors.DefaultSelector):
    """Never waits: the time that it was to wait is added to the loop's clock."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None and timeout > 0:
            self.skipped += timeout
        elif not ready and timeout is None:
            raise RuntimeError("deadlock: every task waits, and no timer is set")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """For tests and simulations in one thread without real I/O."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.skipped


class LoopClock:
    """The clock port over the running loop's time."""

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=asyncio.get_running_loop().time())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(main: Any) -> Any:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
