"""Five hundred tasks at an endpoint with eight places, by the real gate, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from ratchet.core.admission import Terms
from ratchet.core.facts import Answered, Away
from ratchet.core.replies import FailureKind, ModelFailure, Usage
from ratchet.fakes import clock
from ratchet.shell.gate import ModelGate

from tests.unit.gate.places import open_gate
from tests.unit.gate.tickets import failure, ticket

SLOTS, LATENCY_S, TASKS, TURNS = 8, 2.0, 500, 10


@dataclass
class Server:
    """A model that has so many slots, and refuses whoever finds none."""

    slots: int
    busy: int = 0
    refused: int = 0
    served: Counter[int] = field(default_factory=Counter)

    async def ask(self, task: int) -> Answered | ModelFailure:
        if self.busy >= self.slots:
            self.refused += 1
            return failure(FailureKind.WAIT)
        self.busy += 1
        try:
            await asyncio.sleep(LATENCY_S)
        finally:
            self.busy -= 1
        self.served[task] += 1
        return Answered(LATENCY_S, Usage(100, 0, 10))


@dataclass
class Crowd:
    gate: ModelGate
    server: Server
    tools_s: float = 0.0
    turns: int = TURNS
    ended_at: dict[int, float] = field(default_factory=dict)

    async def task(self, number: int, priority: int = 0) -> None:
        for turn in range(self.turns):
            await self._turn(number, priority, running=turn > 0)
            await asyncio.sleep(self.tools_s)
        self.ended_at[number] = _now()

    async def _turn(self, number: int, priority: int, *, running: bool) -> None:
        while True:
            wish = ticket(number, priority=priority, running=running)
            permit = await self.gate.enter(wish, lambda sentence, place: None)
            assert not isinstance(permit, Away)
            how = await self.server.ask(number)
            permit.done(how)
            if isinstance(how, Answered):
                return


def _now() -> float:
    return asyncio.get_running_loop().time()


def test_five_hundred_tasks_at_eight_places_end_in_fair_order_without_one_refusal() -> None:
    async def run() -> Crowd:
        crowd = Crowd(open_gate(Terms(requests=SLOTS)), Server(SLOTS))
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(crowd.task(number))
        return crowd

    crowd = clock.run(run())
    assert crowd.server.refused == 0
    assert crowd.server.served == dict.fromkeys(range(TASKS), TURNS)
    ideal_s = TASKS * TURNS * LATENCY_S / SLOTS
    assert max(crowd.ended_at.values()) <= 1.02 * ideal_s, "no place stays empty"
    order = sorted(crowd.ended_at, key=lambda task: (crowd.ended_at[task], task))
    assert all(abs(place - task) < SLOTS for place, task in enumerate(order)), "oldest first"


def test_tasks_of_high_priority_go_first_and_those_of_low_priority_still_end() -> None:
    """20 tasks of low priority among ever more of high priority than the server can serve."""

    async def run() -> tuple[Crowd, float]:
        crowd = Crowd(open_gate(Terms(requests=SLOTS)), Server(SLOTS), turns=8)
        high = [asyncio.create_task(crowd.task(1000 + number, 10)) for number in range(40)]
        low = [asyncio.create_task(crowd.task(number, -10)) for number in range(20)]
        while any(not task.done() for task in low):
            high.append(asyncio.create_task(crowd.task(1000 + len(high), 10)))
            await asyncio.sleep(1.6)
        ended = _now()
        await asyncio.gather(*low, *high)
        return crowd, ended

    crowd, ended = clock.run(run())
    assert crowd.server.refused == 0
    # They wait 5 minutes at first; from then on each tenth place is theirs.
    assert 300 < ended <= 300 + 1.2 * 10 * 20 * 8 * LATENCY_S / SLOTS
    first_low = min(crowd.ended_at[number] for number in range(20))
    assert sum(at < first_low for at in crowd.ended_at.values()) >= 100


def test_a_server_that_says_nothing_of_its_slots_is_not_stampeded() -> None:
    """Nobody told the gate of a limit: after one rush it sends about as much as the server bears."""

    async def run() -> Crowd:
        crowd = Crowd(open_gate(Terms()), Server(SLOTS), turns=4)
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(crowd.task(number))
        return crowd

    crowd = clock.run(run())
    assert crowd.server.served == dict.fromkeys(range(TASKS), 4)
    rush = TASKS - SLOTS
    assert crowd.server.refused < rush + 0.15 * TASKS * 4
    assert max(crowd.ended_at.values()) < 2 * TASKS * 4 * LATENCY_S / SLOTS
