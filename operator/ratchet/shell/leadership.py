"""Who may run loops: takes the Lease, keeps it, and says when that changes.

A process that loses the Lease ends its loops and stands by; it does not exit
(`docs/adr/0004-standby-operators.md`).
"""

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
        """Why this process is neither the one that runs loops nor one that could follow it.

        Empty if it is one of them.
        """
        if self.held or self._lease.stands_by():
            return ""
        return self._lease.problem or "the Lease is not held"

    @property
    def role(self) -> str:
        """What this process does, in one word."""
        return "leading" if self.held else "standby"

    async def run(self, changed: Callable[[], None]) -> None:
        """Take the Lease again and again, until cancelled; `changed` is called at every turn."""
        while True:
            if not await self._lease.attempt():
                _log.info("Standby", extra={"fields": {"problem": self._lease.problem}})
                await self._lease.acquire()
            _log.info("Leading")
            changed()
            await self._lease.keep(changed)
            _log.warning("NotLeading", extra={"fields": {"problem": self._lease.problem}})
            changed()

    async def release(self) -> None:
        """Give the Lease back, so that the next process need not wait."""
        await self._lease.release()
