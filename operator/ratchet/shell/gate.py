"""Who may ask which endpoint when (ports.Gate): one object for the process, shared by all tasks.

The deciding is `ratchet.core.admission`; here are its futures and timers. Nothing is polled: a place
that becomes free wakes the next ticket in the same step.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ratchet.core.admission import Hold, Lane, Load, Settled, Terms, Wanting
from ratchet.core.breaker import BreakerState
from ratchet.core.replies import ModelFailure
from ratchet.ports import Answered, Away, Clock, EndpointRef, Permit, Ticket, Told

TELL_FIRST_S = 1.0
"""A ticket that waits less is told nothing: its task would show that it is queued at each turn."""
TELL_AGAIN_S = 15.0
TELLINGS_PER_SECOND = 10
"""At an endpoint, beyond the first ones: each may be a write of a task's status."""

How = Answered | ModelFailure | None


@dataclass(frozen=True, slots=True)
class View:
    """How it stands at an endpoint."""

    running: int
    queued: int
    breaker: BreakerState
    said: str
    """What the failure said that opened the breaker; empty while it is closed."""
    hold: Hold | None
    """Why the next ticket waits."""


class Listener:
    """Is told what happens at endpoints. This one listens to nothing."""

    def wanting(self, endpoint: EndpointRef, what: Wanting) -> None:
        """A ticket waits until it is known what the endpoint takes. May be said more than once."""

    def ended(self, endpoint: EndpointRef, how: How) -> None:
        """A request ended, or its permit was given back unused (None)."""

    def counted(self, endpoint: EndpointRef, running: int, queued: int) -> None:
        """How many run and wait now. Said when one of the two may have changed."""


@dataclass(slots=True, eq=False)
class _Waiter:
    future: asyncio.Future[Permit | Away]
    told: Told
    tell_at: float
    said: tuple[int, str] | None = None


@dataclass(slots=True, eq=False)
class _Way:
    """A lane, and those who wait in it."""

    endpoint: EndpointRef
    lane: Lane
    waiters: dict[int, _Waiter] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class ModelGate:
    """Lets in by the terms of each endpoint. All methods are called in the event loop's thread."""

    def __init__(self, clock: Clock, *listeners: Listener) -> None:
        self._clock = clock
        self._listeners = list(listeners)
        self._ways: dict[EndpointRef, _Way] = {}
        self._keys = itertools.count()
        self._teller: asyncio.TimerHandle | None = None

    @property
    def endpoints(self) -> frozenset[EndpointRef]:
        """Those that are known here, or wanted by somebody."""
        return frozenset(self._ways)

    def listen(self, listener: Listener) -> None:
        """Tell one more."""
        self._listeners.append(listener)

    # --- tasks -----------------------------------------------------------------------------------

    async def enter(self, ticket: Ticket, told: Told) -> Permit | Away:
        """Wait for a place (ports.Gate).

        `told` comes first after a second in the queue, and again at most every 15 s, only if the
        place or the reason changed. While the ModelEndpoint was not read yet, nobody is let in.
        """
        way, key, now = self._way(ticket.endpoint), next(self._keys), _now()
        waiter = _Waiter(asyncio.get_running_loop().create_future(), told, now + TELL_FIRST_S)
        way.waiters[key] = waiter
        way.lane.enter(key, ticket, now)
        self._settle(way)
        if not waiter.future.done():
            self._ask(way)
            self._tell_later()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._withdraw(way, key, waiter)
            raise

    def _withdraw(self, way: _Way, key: int, waiter: _Waiter) -> None:
        if key in way.waiters:
            del way.waiters[key]
            way.lane.leave(key)
            self._settle(way)
        elif not waiter.future.cancelled():
            given = waiter.future.result()
            if not isinstance(given, Away):
                given.done(None)

    def give_back(self, way: _Way, key: int, how: How) -> None:
        """A permit is done; the next in the queue gets its place."""
        way.lane.end(key, how, _now())
        for listener in self._listeners:
            listener.ended(way.endpoint, how)
        self._settle(way)

    # --- what is known of endpoints --------------------------------------------------------------

    def revise(self, endpoint: EndpointRef, terms: Terms, *, anew: bool = False) -> None:
        """The ModelEndpoint says `terms`, from now on. `anew`: it, or its Secret, has changed."""
        way = self._way(endpoint)
        way.lane.revise(terms, anew=anew)
        self._settle(way)
        if way.waiters:
            self._ask(way)

    def look(self, endpoint: EndpointRef, load: Load | None, began: float) -> None:
        """What the engine said when it was asked for its load at `began`, by the loop's clock."""
        way = self._way(endpoint)
        way.lane.look(load, began)
        self._settle(way)

    def forget(self, endpoint: EndpointRef) -> None:
        """There is no such ModelEndpoint. Tasks that run keep what they began with, and its terms;
        where none were ever read, nothing is left that could set a limit."""
        way = self._ways.get(endpoint)
        if way is None:
            return
        if not way.waiters and not way.lane.running:
            if way.timer is not None:
                way.timer.cancel()
            del self._ways[endpoint]
        elif way.lane.terms is None:
            self.revise(endpoint, Terms())

    def view(self, endpoint: EndpointRef) -> View:
        """How it stands there now."""
        lane, now = self._way(endpoint).lane, _now()
        breaker = lane.breaker
        return View(lane.running, lane.queued, breaker.state(now), breaker.message, lane.hold(now))

    # --- how -------------------------------------------------------------------------------------

    def _way(self, endpoint: EndpointRef) -> _Way:
        way = self._ways.get(endpoint)
        if way is None:
            way = self._ways[endpoint] = _Way(endpoint, Lane())
        return way

    def _ask(self, way: _Way) -> None:
        wants = way.lane.wants
        if wants is not Wanting.NOTHING:
            for listener in self._listeners:
                listener.wanting(way.endpoint, wants)

    def _settle(self, way: _Way) -> None:
        """Hand out what there is to hand out, and set the timer for the next time."""
        while True:
            settled = way.lane.settle(_now())
            if not self._hand_out(way, settled):
                break
        self._set_timer(way)
        lane = way.lane
        for listener in self._listeners:
            listener.counted(way.endpoint, lane.running, lane.queued)

    def _hand_out(self, way: _Way, settled: Settled) -> bool:
        """Whether a place came back at once, from a ticket whose task has just been cancelled."""
        came_back = False
        for key in settled.admitted:
            future = way.waiters.pop(key).future
            if future.cancelled():
                way.lane.end(key, None, _now())
                came_back = True
            else:
                future.set_result(_Place(self, way, key))
        if settled.away:
            message = (
                f"The endpoint {way.endpoint} is left alone for a while, because it failed: "
                f"{way.lane.breaker.message}"
            )
            until = self._time(way.lane.away_until(_now()))
            self._send_away(way, settled.away, Away(message, until))
        if settled.full:
            until = self._time(way.lane.full_until)
            message = (
                f"The endpoint {way.endpoint} said that it is full, and is left alone until "
                f"{until:%H:%M:%S} UTC."
            )
            self._send_away(way, settled.full, Away(message, until, full=True))
        return came_back

    def _send_away(self, way: _Way, keys: tuple[int, ...], away: Away) -> None:
        for key in keys:
            future = way.waiters.pop(key).future
            if not future.cancelled():
                future.set_result(away)

    def _time(self, at: float) -> datetime:
        """The date of a moment of the loop's clock."""
        return self._clock.now() + timedelta(seconds=at - _now())

    def _set_timer(self, way: _Way) -> None:
        at = way.lane.wakes_at(_now())
        if way.timer is not None:
            if way.timer.when() == at:
                return
            way.timer.cancel()
            way.timer = None
        if at is not None:
            way.timer = asyncio.get_running_loop().call_at(at, self._wake, way)

    def _wake(self, way: _Way) -> None:
        way.timer = None
        self._settle(way)

    # --- telling ---------------------------------------------------------------------------------

    def _tell_later(self) -> None:
        if self._teller is None:
            loop = asyncio.get_running_loop()
            self._teller = loop.call_later(TELL_FIRST_S, self._tell)

    def _tell(self) -> None:
        self._teller = None
        for way in tuple(self._ways.values()):
            self._tell_way(way)
        if any(way.waiters for way in self._ways.values()):
            self._tell_later()

    def _tell_way(self, way: _Way) -> None:
        now = _now()
        due = {key for key, waiter in way.waiters.items() if waiter.tell_at <= now}
        hold = way.lane.hold(now) if due else None
        if hold is None:
            return
        order = way.lane.queue.order(now)
        again_s = max(TELL_AGAIN_S, len(order) / TELLINGS_PER_SECOND)
        for place, key in enumerate(order, 1):
            if key in due:
                # Those that came together are not told together for ever.
                spread = 1 + key % 64 / 64
                _tell_one(way, way.waiters[key], place, hold.why, now + again_s * spread)


def _tell_one(way: _Way, waiter: _Waiter, place: int, why: str, again_at: float) -> None:
    waiter.tell_at = again_at
    if waiter.said != (place, why):
        waiter.said = place, why
        text = f"Place {place:,} of {len(way.waiters):,} at endpoint {way.endpoint}: {why}."
        waiter.told(text, place)


class _Place:
    """ports.Permit."""

    __slots__ = ("_gate", "_key", "_way")

    def __init__(self, gate: ModelGate, way: _Way, key: int) -> None:
        self._gate: ModelGate | None = gate
        self._way, self._key = way, key

    def done(self, how: How) -> None:
        """Give the place back; a second time changes nothing."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.give_back(self._way, self._key, how)


def _now() -> float:
    return asyncio.get_running_loop().time()
