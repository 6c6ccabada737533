"""The latest moment at which the end of a call is waited for.

A runner ends each call by its hard timeout. One that is connected and says nothing long after that
is stuck, or was replaced by a command that took its place: without a limit of the server's own the
call would be open for ever.
"""

import asyncio
from collections.abc import Callable
from typing import Final

BEYOND_S: Final = 60.0
"""Seconds after its hard timeout that a runner has for killing, saving and telling."""


class Deadlines:
    """One timer for each open call. `over` is told of a key whose time is up, again and again until
    `end` is."""

    def __init__(self, over: Callable[[str], None], beyond_s: float = BEYOND_S) -> None:
        self._over = over
        self._beyond_s = beyond_s
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def begin(self, key: str, hard_timeout_s: float) -> None:
        """Count for a call, from now; one that is counted for already goes on."""
        if key not in self._timers:
            self._arm(key, hard_timeout_s + self._beyond_s)

    def end(self, key: str) -> None:
        """The call has ended."""
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def close(self) -> None:
        """Count for no call any more."""
        for key in list(self._timers):
            self.end(key)

    def _arm(self, key: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(seconds, self._ring, key)

    def _ring(self, key: str) -> None:
        self._arm(key, self._beyond_s)
        self._over(key)
