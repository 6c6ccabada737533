"""Faults at failpoints in virtual time: one strikes in a play, or all passings are noted."""

from __future__ import annotations

import asyncio
import operator
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from ratchet.core.records import Record
from ratchet.failpoints import Fault, Point
from ratchet.failpoints.steps import Away
from ratchet.fakes.journal import Stage
from ratchet.shell.processfaults import AGAIN_AFTER_S, SILENCE_S, Strike

from tests.unit.core.world import Owner, World

T = TypeVar("T")

AFTERWARDS = frozenset({Fault.KILL_AFTER, Fault.ANSWER_LOST, Fault.TWICE, Fault.STALL_AFTER})
"""Faults that need a call that succeeded."""
STALLS = frozenset({Fault.STALL_BEFORE, Fault.STALL_AFTER})
KILLS = frozenset({Fault.KILL_BEFORE, Fault.KILL_AFTER})
TAKEOVER_S = 1.0
"""How long after an owner began to stand still another one takes over."""
WAKES_S = (1.015, 1.025, 1.035, 2.5, 60.0)
"""How long an owner stands still: until its next write falls between two requests of the other
one's claim (three times), into the middle of its work, and far behind."""
PART_S = 0.01
"""Seconds that a request takes that is part of a claim or of the making of a sandbox."""


@dataclass(slots=True)
class Plot:
    """What goes wrong in one play of a world, and what has happened of it."""

    world: World
    strike: Strike | None = None
    stands_s: float = 0.0
    """How long an owner stands still, where the fault is a stall."""
    passed: Counter[Point] = field(default_factory=Counter)
    succeeded: set[tuple[Point, int]] = field(default_factory=set)
    """Passings whose call came to its end, and well."""
    struck_at: float | None = None
    resumed_at: float | None = None
    """When the first record after the strike was written."""
    late: set[asyncio.Task[None]] = field(default_factory=set)
    """Calls that are delivered again."""
    _journal: tuple[Record, ...] = ()

    def __post_init__(self) -> None:
        self.world.faults = lambda owner: OwnerFaults(self, owner)
        self.world.hooks.append(self._look)

    def struck(self) -> None:
        """Note that the fault strikes now."""
        self.struck_at = self.world.now
        self._journal = self.world.task.journal
        if self.strike is not None:
            self.world.tell("world", f"{self.strike.point}: {self.strike.fault}")

    async def _look(self, _operation: str, _stage: Stage) -> None:
        if self.struck_at is None or self.resumed_at is not None:
            return
        journal = self.world.task.journal
        same = len(journal) == len(self._journal) and all(map(operator.is_, journal, self._journal))
        if not same:
            self.resumed_at = self.world.now


@dataclass(frozen=True, slots=True)
class OwnerFaults:
    """ratchet.failpoints.Faults of one owner in a play."""

    plot: Plot
    owner: Owner

    async def step(self, point: Point, call: Callable[[], Awaitable[T]], away: Away) -> T:
        """Do the call, or what the plot says."""
        await self._as_far_as_it_gets()
        if "." in point:
            await asyncio.sleep(PART_S)
            await self._as_far_as_it_gets()
        plot = self.plot
        plot.passed[point] += 1
        nth = plot.passed[point]
        strike = plot.strike
        if strike is None or (strike.point, strike.nth) != (point, nth):
            result = await call()
            plot.succeeded.add((point, nth))
            return result
        if strike.fault not in AFTERWARDS:
            plot.struck()
            return await self._before(strike.fault, call, away)
        result = await call()
        plot.struck()
        return await self._after(strike, result, call, away)

    async def _as_far_as_it_gets(self) -> None:
        """A dead process does nothing more, and one that stands still does nothing yet."""
        world, owner = self.plot.world, self.owner
        if owner.frozen > world.now:
            await asyncio.sleep(owner.frozen - world.now)
        if owner.work is not None and owner.work.cancelling():
            await _never()

    async def _before(self, fault: Fault, call: Callable[[], Awaitable[T]], away: Away) -> T:
        match fault:
            case Fault.KILL_BEFORE:
                await self._die()
            case Fault.ERROR:
                raise away("the failpoint says that it cannot be done")
            case Fault.NEVER_ARRIVES:
                await asyncio.sleep(SILENCE_S)
                raise away("the failpoint lost the request")
            case _:
                await self._stand_still()
        return await call()

    async def _after(
        self, strike: Strike, result: T, call: Callable[[], Awaitable[T]], away: Away
    ) -> T:
        match strike.fault:
            case Fault.KILL_AFTER:
                await self._die()
            case Fault.ANSWER_LOST:
                await asyncio.sleep(SILENCE_S)
                raise away("the failpoint lost the answer")
            case Fault.TWICE:
                self._deliver_again(strike.point, call)
            case _:
                await self._stand_still()
        return result

    async def _die(self) -> None:
        self.plot.world.kill(self.owner)
        await _never()

    async def _stand_still(self) -> None:
        world = self.plot.world
        self.owner.frozen = world.now + self.plot.stands_s
        asyncio.get_running_loop().call_later(TAKEOVER_S, world.start)
        await asyncio.sleep(self.plot.stands_s)

    def _deliver_again(self, point: Point, call: Callable[[], Awaitable[T]]) -> None:
        async def again() -> None:
            await asyncio.sleep(AGAIN_AFTER_S)
            # Nobody waits for this answer: what it is changes nothing for the operator.
            with suppress(Exception):
                await call()

        task = asyncio.create_task(again())
        self.plot.late.add(task)
        task.add_done_callback(self.plot.late.discard)


async def _never() -> None:
    await asyncio.get_running_loop().create_future()
