"""What lies between processes: requests that take their time, get lost, come late, or come twice.

Each request passes four moments: it leaves, it arrives, it has been served, its answer is there.
Moments are numbered over the whole run, so that a disaster can be put at any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Serve = Callable[[], Awaitable[T]]
"""Does at the other end what a request asks for."""
Told = Callable[[str], Exception]
"""Makes the exception by which a caller learns that there is no answer."""


class Way(StrEnum):
    """Where a request goes, and whether it changes something there."""

    READ = "read"
    WRITE = "write"
    SANDBOX = "sandbox"
    MODEL = "model"

    @property
    def to_api(self) -> bool:
        return self in (Way.READ, Way.WRITE)


class Fate(StrEnum):
    """What becomes of a request that does not simply arrive."""

    LOST = "request lost"
    """It never arrives."""
    DEAF = "answer lost"
    """It is served, and nobody hears of it."""
    LATE = "request late"
    """The caller is told that there is no answer; it arrives seconds later all the same."""
    TWICE = "request twice"
    """It is served, and once more seconds later."""
    SLOW = "request slow"
    """It takes seconds longer."""
    CONFLICT = "conflict"
    """The API server says 409 and does nothing."""
    REFUSED = "refused for now"
    """The API server says 503 or 429 and does nothing."""

    def befalls(self, way: Way) -> bool:
        """Whether this can happen to such a request."""
        match self:
            case Fate.CONFLICT:
                return way is Way.WRITE
            case Fate.REFUSED:
                return way.to_api
            case Fate.LATE | Fate.TWICE:
                return way in (Way.WRITE, Way.SANDBOX)
            case _:
                return True


class Sender(Protocol):
    """A process, as the network sees it."""

    dead: bool
    last_words_s: float
    """How much later than usual what it had sent arrives when it is dead."""

    async def awake(self) -> None:
        """Return when the process can go on: not while it stands still, and never once it is dead."""


@dataclass(slots=True)
class Doom:
    """A fate that waits for its request: the first that it can befall from this moment on."""

    moment: int
    fate: Fate
    seconds: float
    struck: Callable[[], None]


@dataclass(slots=True)
class Network:
    """All connections of all processes. `dice` decides how long things take."""

    dice: Random
    tell: Callable[[str, str], None] = lambda _who, _what: None
    came_late: Callable[[Sender], None] = lambda _sender: None
    """Told of each request that arrives when its sender has given it up, or had its answer."""
    moments: int = 0
    dooms: list[Doom] = field(default_factory=list)
    watchers: list[Callable[[Sender], None]] = field(default_factory=list)
    """Called at each moment, with the process whose request it is."""
    away_until: dict[Way, float] = field(default_factory=dict)
    flights: set[asyncio.Task[Any]] = field(default_factory=set)
    never_came: int = 0
    """Requests that never reached the model."""

    def is_away(self, way: Way) -> bool:
        """Whether the other end cannot be reached now."""
        until = self.away_until.get(Way.WRITE if way.to_api else way, 0.0)
        return asyncio.get_running_loop().time() < until

    async def request(
        self,
        sender: Sender,
        way: Way,
        what: str,
        connect: Callable[[], Serve[T]],
        *,
        silence: Told,
        no: Callable[[int, str], Exception] | None = None,
    ) -> T:
        """Have a request served at the other end, and bring the answer back.

        `connect` is called when the request leaves. `silence` makes what the sender is told where
        no answer comes, `no` a refusal by status.
        """
        await sender.awake()
        self._pass(sender)
        await sender.awake()
        doom = self._doom_of(way)
        if doom is not None:
            self.tell("network", f"{doom.fate}: {what}")
            doom.struck()
        if doom is not None and doom.fate in (Fate.CONFLICT, Fate.REFUSED):
            assert no is not None
            await asyncio.sleep(self._latency())
            raise no(409, "Conflict") if doom.fate is Fate.CONFLICT else no(503, "Unavailable")
        flight = self._start(self._fly(sender, way, connect(), silence, doom))
        try:
            return await self._answer(flight, doom, silence)
        except asyncio.CancelledError:
            if way is Way.MODEL:
                flight.cancel()  # the connection closes, and the engine stops
            raise
        finally:
            if not _is_cancelled():
                await sender.awake()
                self._pass(sender)
                await sender.awake()

    async def _answer(self, flight: asyncio.Task[T], doom: Doom | None, silence: Told) -> T:
        if doom is None or doom.fate in (Fate.SLOW, Fate.TWICE):
            return await asyncio.shield(flight)
        if doom.fate is Fate.DEAF:
            await asyncio.wait([flight])
        await asyncio.sleep(self.dice.choice((0.0, 0.3, 3.0)))
        raise silence("no answer came")

    async def _fly(
        self,
        sender: Sender,
        way: Way,
        serve: Serve[T],
        silence: Told,
        doom: Doom | None,
    ) -> T:
        fate, seconds = (None, 0.0) if doom is None else (doom.fate, doom.seconds)
        # Thrown now: who waits for one call of a sandbox is woken in no certain order.
        there, back = self._latency(), self._latency()
        await asyncio.sleep(there)
        if fate is Fate.LOST:
            self.never_came += way is Way.MODEL
            raise silence("it was lost on its way")
        if fate in (Fate.LATE, Fate.SLOW):
            await asyncio.sleep(seconds)
        if sender.dead and sender.last_words_s:
            await asyncio.sleep(sender.last_words_s)
        if self.is_away(way):
            raise silence("it cannot be reached")
        if sender.dead or fate is Fate.LATE:
            self.came_late(sender)
        self._pass(sender)
        answer = await serve()
        self._pass(sender)
        if fate is Fate.TWICE:
            self._start(self._again(sender, serve, seconds))
        await asyncio.sleep(back)
        return answer

    async def _again(self, sender: Sender, serve: Serve[T], seconds: float) -> T:
        await asyncio.sleep(seconds)
        self.came_late(sender)
        return await serve()

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        flight = asyncio.create_task(work)
        self.flights.add(flight)
        flight.add_done_callback(self._landed)
        return flight

    def _landed(self, flight: asyncio.Task[Any]) -> None:
        self.flights.discard(flight)
        if not flight.cancelled():
            flight.exception()  # whoever waits for it gets it; nobody else needs to hear of it

    def doom(self, doom: Doom) -> None:
        """Have something go wrong with a request to come."""
        self.dooms.append(doom)

    def _doom_of(self, way: Way) -> Doom | None:
        for doom in self.dooms:
            if doom.moment <= self.moments and doom.fate.befalls(way):
                self.dooms.remove(doom)
                return doom
        return None

    def _pass(self, sender: Sender) -> None:
        self.moments += 1
        for watcher in tuple(self.watchers):
            watcher(sender)

    def _latency(self) -> float:
        """Of one way, in seconds."""
        return 1.0 if self.dice.random() < 0.005 else self.dice.uniform(0.0005, 0.025)


def _is_cancelled() -> bool:
    """Whether the running task is being cancelled: it does nothing more then."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
