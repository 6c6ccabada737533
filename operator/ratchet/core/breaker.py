"""What an endpoint's failures mean for all tasks: leave it alone, or send it less. Pure.

Times are seconds on one clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ratchet.core.replies import FailureKind, ModelFailure

LONGEST_OPEN_S: Final = 300.0
"""An endpoint that fails on is not left alone for longer, unless its openSeconds say so."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


class BreakerState(StrEnum):
    """Who gets through: everybody, nobody, or exactly one to try."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"


@dataclass(frozen=True, slots=True)
class Breaker:
    """Keeps requests from an endpoint that fails; one for each endpoint, shared by all tasks.

    It opens after so many failures of the way there (RETRY) with no success between, and at once
    when the endpoint refuses everybody (CONFIGURATION). After a while it is half open: one request
    goes through, and its success closes the breaker, its failure opens it again for twice as long.
    An endpoint that is full (WAIT) or refuses one request (CONTEXT, REQUEST) has not failed.
    """

    failures: int = 0
    """In a row, while it is closed."""
    opened: int = 0
    """How often it opened since the last success."""
    until: float = 0.0
    """Open until then, half open from then on; means something only where `opened`."""
    trying: int | None = None
    """The request that was let through a half-open breaker and has not ended."""
    tried_at: float = 0.0
    message: str = ""
    """What the failure that opened it said."""

    def state(self, now: float) -> BreakerState:
        """Who gets through now."""
        if not self.opened:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.until else BreakerState.HALF_OPEN

    def lets_in(self, now: float) -> bool:
        """Whether a request may be sent now."""
        state = self.state(now)
        return state is BreakerState.CLOSED or (
            state is BreakerState.HALF_OPEN and self.trying is None
        )

    def sent(self, key: int, now: float) -> Breaker:
        """A request goes to the endpoint."""
        if self.state(now) is BreakerState.HALF_OPEN:
            return replace(self, trying=key, tried_at=now)
        return self

    def ended(self, key: int) -> Breaker:
        """A request ended in a way that says nothing about the endpoint."""
        return replace(self, trying=None) if key == self.trying else self

    def failed(
        self, key: int, failure: ModelFailure, now: float, most: int, open_s: float
    ) -> Breaker:
        """A request failed; the breaker opens after `most` failures, at first for `open_s`."""
        if failure.kind not in (FailureKind.RETRY, FailureKind.CONFIGURATION):
            return self.ended(key)
        if self.opened and key != self.trying:
            return self  # it was sent before the breaker opened, and tells nothing new
        failures = self.failures + 1
        if not self.opened and failure.kind is FailureKind.RETRY and failures < most:
            return replace(self, failures=failures)
        seconds = min(open_s * 2**self.opened, max(LONGEST_OPEN_S, open_s))
        # A power of two without end would be one at the end of a long outage.
        opened = min(self.opened + 1, 16)
        return Breaker(failures, opened, now + seconds, message=failure.message)


@dataclass(frozen=True, slots=True)
class Pause:
    """No request is sent for a while, because the endpoint said that it is full (429, 503)."""

    began: float = float("-inf")
    until: float = float("-inf")
    seconds: float = 0.0
    """How long the last one was to be; the next one is twice as long, until a request succeeds."""

    def full(self, sent_at: float, now: float, retry_after_s: float | None) -> Pause:
        """A request that was sent at `sent_at` was turned away.

        What was sent before the pause began is of the same rush, and makes it no longer, unless the
        endpoint itself says how long it takes.
        """
        if sent_at <= self.began:
            return replace(self, until=max(self.until, now + (retry_after_s or 0.0)))
        seconds = min(max(2 * self.seconds, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        wait_s = seconds if retry_after_s is None else retry_after_s
        return Pause(now, now + wait_s, seconds)

    def succeeded(self) -> Pause:
        """A request was answered: the next pause is a short one again."""
        return replace(self, seconds=0.0) if self.seconds else self
