"""Who may send a request to an endpoint now: its queue, its limits, its breaker. Deterministic.

A `Lane` is what one endpoint has of this. It is told what happens (a ticket came, a request ended,
a look at the server's load) and asked who goes next; it has no clock, and does nothing by itself.
Times are seconds on one clock that only goes forward.

The head of the queue is never passed by, also not by a smaller request that would fit: the large
one would wait for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ratchet.core.breaker import Breaker, BreakerState, Pause
from ratchet.core.conditions import EndpointReason
from ratchet.core.facts import Answered, Ticket
from ratchet.core.queue import Queue
from ratchet.core.replies import FailureKind, ModelFailure

POOL_SHARE: Final = 0.9
"""Part of the engine's token pool that is filled; what is beyond it makes the engine throw out
prefixes that it needs again, or retract requests."""
SETTLING_S: Final = 2.0
"""A request that was sent so shortly before may still be on its way into the engine's batch."""
TRIAL_PATIENCE_S: Final = 10.0
"""So long the others wait for the one request that tries whether an endpoint works again."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How much an endpoint takes, as its ModelEndpoint says now. None is no limit of that kind."""

    requests: int | None = None
    tokens: int | None = None
    failures: int = 5
    open_s: float = 30.0
    tells_load: bool = False
    """The engine says at /v1/loads how busy it is."""


@dataclass(frozen=True, slots=True)
class Load:
    """What SGLang says at /v1/loads, summed over its data-parallel ranks."""

    running: int
    waiting: int
    used_tokens: int
    """Tokens that running requests hold; not those kept for later prompts."""
    total_tokens: int
    """Size of the pool; 0 is unknown."""
    most_running: int
    """Requests that run at a time; 0 is unknown."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why the next ticket waits, as part of a sentence."""

    reason: EndpointReason
    why: str


@dataclass(frozen=True, slots=True)
class Settled:
    """Who got a place, and who is sent away; keys in order."""

    admitted: tuple[int, ...] = ()
    away: tuple[int, ...] = ()
    full: tuple[int, ...] = ()
    """Sent away too, but from an endpoint that works: it is full for longer than they wait."""


class Wanting(Enum):
    """Whether a lane knows what its endpoint takes."""

    TERMS = auto()
    LOAD = auto()
    NOTHING = auto()


@dataclass(slots=True)
class _Inside:
    tokens: int
    since: float


class Lane:
    """The way to one endpoint. `terms` None: its ModelEndpoint has not been read yet."""

    def __init__(self, terms: Terms | None = None) -> None:
        self.terms = terms
        self.queue = Queue()
        self.breaker = Breaker()
        self._inside: dict[int, _Inside] = {}
        self._tokens = 0
        self._pause = Pause()
        self._bearable: float | None = None
        """Requests that the endpoint bears, as it seems since it said that it is full."""
        self._load: Load | None = None
        self._load_at = 0.0
        self._sent_since_load = 0
        """Tokens of the requests that were sent after the look at the load and still run."""
        self._uncrowded: int | None = None
        """Requests of ours with which none should wait at the server itself."""
        self._most_running: int | None = None
        """What the engine said last; None: it was never looked at, 0: it does not say."""

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._inside)

    @property
    def queued(self) -> int:
        """Tickets that wait."""
        return len(self.queue)

    @property
    def wants(self) -> Wanting:
        """What must be found out before the lane can let in as many as the endpoint takes."""
        if self.terms is None:
            return Wanting.TERMS
        return Wanting.LOAD if self._unlooked else Wanting.NOTHING

    # --- what happens ----------------------------------------------------------------------------

    def enter(self, key: int, ticket: Ticket, now: float) -> None:
        """A ticket comes."""
        self.queue.add(key, ticket, now)

    def leave(self, key: int) -> None:
        """A ticket that waits is withdrawn."""
        self.queue.drop(key)

    def end(self, key: int, how: Answered | ModelFailure | None, now: float) -> None:
        """A request ended; None: nothing is known about how. Its place is free again."""
        inside = self._inside.pop(key)
        self._tokens -= inside.tokens
        if inside.since >= self._load_at:
            self._sent_since_load -= inside.tokens
        match how:
            case None:
                self.breaker = self.breaker.ended(key)
            case Answered():
                self.breaker = Breaker()
                self._pause = self._pause.succeeded()
                self._bear_more()
            case ModelFailure():
                self._fail(key, how, inside.since, now)

    def revise(self, terms: Terms, *, anew: bool) -> None:
        """The ModelEndpoint says `terms`. `anew`: something was mended, so failures are forgotten."""
        self.terms = terms
        if not anew:
            return
        self.breaker, self._pause, self._bearable = Breaker(), Pause(), None
        self._load, self._uncrowded, self._most_running = None, None, None

    def look(self, load: Load | None, began: float) -> None:
        """The engine was asked for its load at `began`; None: it does not say."""
        self._load, self._load_at = load, began
        sent_lately = [i for i in self._inside.values() if i.since > began - SETTLING_S]
        self._sent_since_load = sum(i.tokens for i in sent_lately if i.since >= began)
        self._uncrowded = self._most_uncrowded(load, len(sent_lately))
        if load is not None or self._most_running is None:
            self._most_running = load.most_running if load is not None else 0

    def settle(self, now: float) -> Settled:
        """Give places to all that can have one. To be called after anything that happened, and at
        `wakes_at`."""
        if self._sends_away(now):
            away = tuple(self.queue.order(now))
            for key in away:
                self.queue.drop(key)
            return Settled(away=away)
        full = self.queue.drop_impatient(self._pause.until - now)
        admitted: list[int] = []
        while (head := self.queue.head(now)) is not None:
            ticket = self.queue.ticket(head)
            if self._hold(ticket, now) is not None:
                break
            self.queue.take(head)
            self._admit(head, ticket, now)
            admitted.append(head)
        return Settled(tuple(admitted), full=full)

    def wakes_at(self, now: float) -> float | None:
        """When `settle` may have something to do although nothing happens; None: never."""
        if not self.queue:
            return None
        if self.breaker.trying is not None and self.breaker.opened:
            return self.breaker.tried_at + TRIAL_PATIENCE_S
        return self._pause.until if now < self._pause.until else None

    # --- what is asked ---------------------------------------------------------------------------

    def away_until(self, now: float) -> float:
        """Until when those stay away that are sent away now."""
        terms = self.terms or Terms()
        return self.breaker.until if now < self.breaker.until else now + terms.open_s

    @property
    def full_until(self) -> float:
        """Until when the endpoint said that it is full; long ago if it never did."""
        return self._pause.until

    def hold(self, now: float) -> Hold | None:
        """Why the head of the queue waits; None if nobody does."""
        key = self.queue.head(now)
        return None if key is None else self._hold(self.queue.ticket(key), now)

    # --- how -------------------------------------------------------------------------------------

    @property
    def _unlooked(self) -> bool:
        """Whether only the engine can tell how much it takes, and has not been asked."""
        terms = self.terms
        return (
            terms is not None
            and terms.tells_load
            and terms.requests is None
            and self._most_running is None
        )

    def _sends_away(self, now: float) -> bool:
        state = self.breaker.state(now)
        if state is BreakerState.HALF_OPEN and self.breaker.trying is not None:
            return now >= self.breaker.tried_at + TRIAL_PATIENCE_S
        return state is BreakerState.OPEN

    def _admit(self, key: int, ticket: Ticket, now: float) -> None:
        self._inside[key] = _Inside(ticket.tokens, now)
        self._tokens += ticket.tokens
        self._sent_since_load += ticket.tokens
        self.breaker = self.breaker.sent(key, now)

    def _fail(self, key: int, failure: ModelFailure, sent_at: float, now: float) -> None:
        terms = self.terms or Terms()
        self.breaker = self.breaker.failed(key, failure, now, terms.failures, terms.open_s)
        if failure.kind is not FailureKind.WAIT:
            return
        before, left = self._pause, max(1.0, float(self.running))
        self._pause = before.full(sent_at, now, failure.retry_after_s)
        if self._pause.began == before.began and self._bearable is not None:
            # Of the same rush. What is left when all that were too many have come back, it bears.
            left = min(self._bearable, left)
        self._bearable = left

    def _most_uncrowded(self, load: Load | None, sent_lately: int) -> int | None:
        """How many of ours should be at the server until the next look; None: no limit.

        Whatever waits there, but for what we have just sent, is too many; one always goes, so that
        we get through beside others who crowd it. When nothing waits any more, it may be more
        again, by and by: places must not stay empty until the next look, nor the crowd come back.
        """
        if load is None:
            return None
        if load.waiting > sent_lately:
            return max(1, self.running - (load.waiting - sent_lately))
        if self._uncrowded is None:
            return None
        more = self._uncrowded + max(1, self._uncrowded // 4)
        return more if more < max(2 * self.running, self._places() or 0) else None

    def _bear_more(self) -> None:
        """After a success: towards a limit that is known fast, and into the unknown slowly."""
        if self._bearable is None:
            return
        most = self._places()
        self._bearable += 1 / self._bearable if most is None else 1
        if most is not None and self._bearable >= most:
            self._bearable = None

    def _places(self) -> int | None:
        """Requests that may run at a time, by what is written or said; None: no limit is known."""
        if self.terms is None:
            return 0
        if self.terms.requests is not None:
            return self.terms.requests
        if not self.terms.tells_load:
            return None
        # Not looked at yet: one goes ahead, so that nobody waits where there is no such page.
        return 1 if self._most_running is None else self._most_running or None

    def _hold(self, ticket: Ticket, now: float) -> Hold | None:
        """Why this ticket cannot have a place now."""
        if self.terms is None:
            return Hold(EndpointReason.NOT_ASKED, "its ModelEndpoint is being read")
        if not self.breaker.lets_in(now):
            text = "it failed, and one request tries whether it works again"
            return Hold(EndpointReason.BREAKER_OPEN, text)
        if now < self._pause.until:
            text = "it said that it is full, and is left alone for a moment"
            return Hold(EndpointReason.SERVER_FULL, text)
        return self._hold_of_places() or self._hold_of_tokens(ticket) or self._hold_of_load(ticket)

    def _hold_of_places(self) -> Hold | None:
        most = self._places()
        if most is not None and self.running >= most:
            taken = "the only place is" if most == 1 else f"all {most:,} places are"
            return Hold(EndpointReason.PLACES_TAKEN, f"{taken} taken")
        if self._bearable is not None and self.running >= int(self._bearable):
            text = (
                f"it said that it is full, and gets only {int(self._bearable):,} at a time for now"
            )
            return Hold(EndpointReason.SERVER_FULL, text)
        return None

    def _hold_of_tokens(self, ticket: Ticket) -> Hold | None:
        most = self.terms.tokens if self.terms is not None else None
        if most is None or not self._inside or self._tokens + ticket.tokens <= most:
            return None
        text = (
            f"the next request's {ticket.tokens:,} tokens do not fit beside the {self._tokens:,} "
            f"that are under way; capacity.tokens is {most:,}"
        )
        return Hold(EndpointReason.PLACES_TAKEN, text)

    def _hold_of_load(self, ticket: Ticket) -> Hold | None:
        load = self._load
        if load is None:
            return None
        if self._uncrowded is not None and self.running >= self._uncrowded:
            text = "requests wait at the server itself"
            return Hold(EndpointReason.SERVER_FULL, text)
        alone = not self._inside and not load.running
        used = load.used_tokens + self._sent_since_load
        if alone or not load.total_tokens or used + ticket.tokens <= POOL_SHARE * load.total_tokens:
            return None
        text = (
            f"the next request's {ticket.tokens:,} tokens do not fit into the server's memory now"
        )
        return Hold(EndpointReason.SERVER_FULL, text)
