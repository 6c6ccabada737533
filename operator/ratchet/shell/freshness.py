"""Whether the watch still delivers: what we write must come back."""

from __future__ import annotations

import time
from dataclasses import dataclass

LATEST_S = 90.0
"""How long a write may be without coming back as an event before the watch counts as stale.

kopf opens a watch anew after 70 s of silence (`watching.inactivity_timeout`), so one that only fell
silent is mended before.
"""


@dataclass(slots=True)
class Freshness:
    """Compares the last write to the last event, on the monotonic clock."""

    waiting_since: float | None = None

    def wrote(self) -> None:
        """Note a status write of ours."""
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def heard(self) -> None:
        """Note any watch event of a task."""
        self.waiting_since = None

    def stale(self) -> str:
        """A sentence if the watch is stale, else nothing."""
        if self.waiting_since is None:
            return ""
        seconds = time.monotonic() - self.waiting_since
        if seconds < LATEST_S:
            return ""
        return f"no watch event for {seconds:.0f} s although a status was written since"
