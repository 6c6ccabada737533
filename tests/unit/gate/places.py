"""A gate in virtual time, and tasks that come to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ratchet.core.admission import Terms
from ratchet.core.facts import Answered, Away, Ticket
from ratchet.core.replies import Usage
from ratchet.fakes.clock import LoopClock
from ratchet.ports import Permit
from ratchet.shell.gate import ModelGate

from tests.unit.gate.tickets import ENDPOINT

GOOD = Answered(1.0, Usage(10, 0, 5))


def open_gate(terms: Terms | None = None) -> ModelGate:
    """A gate that knows these terms of ENDPOINT."""
    gate = ModelGate(LoopClock())
    if terms is not None:
        gate.revise(ENDPOINT, terms)
    return gate


@dataclass(eq=False)
class Comer:
    """A task at the gate."""

    ticket: Ticket
    told: list[tuple[float, str, int]] = field(default_factory=list)
    got: Permit | Away | None = None
    work: asyncio.Task[None] | None = None

    @property
    def inside(self) -> bool:
        return self.got is not None and not isinstance(self.got, Away)

    @property
    def permit(self) -> Permit:
        assert self.got is not None and not isinstance(self.got, Away), self.got
        return self.got

    @property
    def away(self) -> Away:
        assert isinstance(self.got, Away), self.got
        return self.got


def comes(gate: ModelGate, ticket: Ticket) -> Comer:
    """A task that wants in, from now on."""
    comer = Comer(ticket)

    async def enter() -> None:
        comer.got = await gate.enter(ticket, note(comer))

    comer.work = asyncio.create_task(enter())
    return comer


def note(comer: Comer) -> Callable[[str, int], None]:
    def told(sentence: str, place: int) -> None:
        comer.told.append((asyncio.get_running_loop().time(), sentence, place))

    return told


async def steps() -> None:
    """Let everything happen that can happen now."""
    for _ in range(5):
        await asyncio.sleep(0)
