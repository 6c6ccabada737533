"""Who may run loops: takes the Lease, keeps it, and says when that changes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ratchet.edges.lease import LeaseLock

_log = logging.getLogger("ratchet.leadership")


class Leadership:
    """The Lease of this process, as the supervisor and the probes see it."""

    def __init__(self, lease: LeaseLock) -> None:
        self._lease = lease

    @property
    def held(self) -> bool:
        """Whether loops may run now: the renew deadline has not passed."""
        return self._lease.held()

    @property
    def problem(self) -> str:
        """Why this process is not the one that runs loops; empty if it is."""
        return "" if self.held else self._lease.problem or "the Lease is not held"

    async def run(self, changed: Callable[[], None]) -> None:
        """Take the Lease again and again, until cancelled; `changed` is called at every turn."""
        while True:
            await self._lease.acquire()
            _log.info("Leading")
            changed()
            await self._lease.keep()
            _log.warning("NotLeading", extra={"fields": {"problem": self._lease.problem}})
            changed()

    async def release(self) -> None:
        """Give the Lease back, so that the next process need not wait."""
        await self._lease.release()
