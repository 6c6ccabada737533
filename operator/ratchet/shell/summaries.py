"""When the summary of a task is to be written: at once when it matters, else at most once a second."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ratchet.core.status import Summary

PAUSE = timedelta(seconds=1)
"""An activity is shown once it has lasted this long; two ordinary writes are this far apart."""


@dataclass(slots=True)
class Summaries:
    """What was seen and what was written. Makes no write itself."""

    seen: Summary | None = None
    shown: Summary | None = None
    changed_at: datetime | None = None
    written_at: datetime | None = None

    def see(self, summary: Summary, now: datetime) -> None:
        """Note the summary as it is now."""
        if summary == self.seen:
            return
        if self.changed_at is None:
            self.changed_at = now
        self.seen = summary

    def due(self, now: datetime) -> datetime | None:
        """When the newest summary is to be written; None if there is nothing to write."""
        if self.seen is None or self.seen == self.shown or self.changed_at is None:
            return None
        if self.shown is None or self.shown.urgent != self.seen.urgent:
            return now
        return max(self.changed_at, self.written_at or self.changed_at) + PAUSE

    def written(self, now: datetime) -> None:
        """Note that the newest summary is being written."""
        self.shown = self.seen
        self.changed_at = None
        self.written_at = now

    def failed(self) -> None:
        """Note that the last write did not come through."""
        self.shown = None
        if self.changed_at is None:
            self.changed_at = self.written_at
