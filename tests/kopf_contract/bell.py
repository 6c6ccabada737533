"""Waiting for what happens elsewhere, with a deadline and without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

WITHIN_S = 30.0
"""Deadline of every wait here: what is waited for takes milliseconds on an idle machine."""


@dataclass(slots=True)
class Bell:
    """Rung whenever something was noted; lives in the test's event loop."""

    _rung: asyncio.Event = field(default_factory=asyncio.Event)

    def ring(self) -> None:
        """Have all who wait look again."""
        self._rung.set()

    async def until(self, holds: Callable[[], object], otherwise: Callable[[], str] = str) -> None:
        """Wait until something holds. Raises AssertionError with a text after `WITHIN_S`."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while not holds():
                    self._rung.clear()
                    await self._rung.wait()
        except TimeoutError:
            raise AssertionError(f"not within {WITHIN_S:g} s; {otherwise()}") from None
