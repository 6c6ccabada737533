"""A gate that lets everybody in, or holds them back as a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ratchet.core.replies import ModelFailure
from ratchet.fakes.clock import LoopClock
from ratchet.ports import Answered, Away, Clock, Permit, Ticket, Told


@dataclass(slots=True, eq=False)
class OpenPermit:
    """ports.Permit that remembers how often, and as what, it was given back."""

    gate: OpenGate
    ticket: Ticket
    returns: list[Answered | ModelFailure | None] = field(default_factory=list)

    def done(self, how: Answered | ModelFailure | None) -> None:
        self.returns.append(how)
        self.gate.inside.discard(self)


@dataclass(slots=True)
class OpenGate:
    """ports.Gate: admits at once, unless `closed` or `away` is set."""

    clock: Clock = field(default_factory=LoopClock)
    seen: list[Ticket] = field(default_factory=list)
    given: list[OpenPermit] = field(default_factory=list)
    inside: set[OpenPermit] = field(default_factory=set)
    """Permits that were not given back yet."""
    waiting: list[Ticket] = field(default_factory=list)
    away: dict[str, Away] = field(default_factory=dict)
    """By the name of the endpoint; one whose time has come says nothing any more."""
    _opened: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    async def enter(self, ticket: Ticket, told: Told) -> Permit | Away:
        self.seen.append(ticket)
        away = self.away.get(ticket.endpoint.name)
        if away is not None and self.clock.now() < away.until:
            return away
        if self.closed:
            await self._wait(ticket, told)
        permit = OpenPermit(self, ticket)
        self.given.append(permit)
        self.inside.add(permit)
        return permit

    def close(self) -> None:
        """From now on tickets wait."""
        self.closed = True
        self._opened.clear()

    def open(self) -> None:
        """Let in all that wait, and all that come."""
        self.closed = False
        self._opened.set()

    async def _wait(self, ticket: Ticket, told: Told) -> None:
        self.waiting.append(ticket)
        try:
            place = len(self.waiting)
            told(f"Place {place} of {place} at endpoint {ticket.endpoint}: it is closed.", place)
            await self._opened.wait()
        finally:
            self.waiting.remove(ticket)
