"""An owner that stands still until another has taken over, and then goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ratchet.failpoints import Fault, Point

from tests.e2e.operator_process import OperatorProcess
from tests.proof.kills_cases import FIRES_WITHIN_S, PATIENCE_S, VARIABLE
from tests.proof.lane import Lane
from tests.proof.rows import Findings, Row

POINTS = {
    Point.CLAIM_OWNER: 1, Point.ASK: 2, Point.APPEND_TURN: 2, Point.RUN: 2,
    Point.RECORD_RESULTS: 2, Point.APPEND_END: 1,
}  # fmt: skip
"""Where it stands still, and the how manieth time."""
TAKEOVER_WITHIN_S = 60.0
NOTICES_WITHIN_S = 30.0
SETTLES_S = 2.0
"""How long a woken process may still do harm after it has noticed; nothing tells that it has none
in mind."""
NOTICED = '"NotLeading"'
"""What an operator logs that sees that it has lost the Lease."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Where the first owner stands still, and when it is woken."""

    point: Point
    fault: Fault
    after_the_end: bool
    """Woken when the task has ended under the other owner, and not as soon as that has begun."""

    @property
    def row(self) -> str:
        """The name of its row."""
        return f"owner stands still at {self.point}"

    @property
    def failpoint(self) -> str:
        """RATCHET_FAILPOINT of the first owner."""
        return f"{self.point}={self.fault}@{POINTS[self.point]}"


def stalls() -> Iterator[Stall]:
    """All of them: each point, before and after its call, woken early or late."""
    for point in POINTS:
        yield Stall(point, Fault.STALL_BEFORE, after_the_end=False)
        yield Stall(point, Fault.STALL_BEFORE, after_the_end=True)
        yield Stall(point, Fault.STALL_AFTER, after_the_end=point is Point.CLAIM_OWNER)


@dataclass(slots=True)
class Play:
    """One stall as it is played in a lane."""

    lane: Lane
    stall: Stall
    task: str = ""
    kills: int = 0
    resumed: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    async def run(self) -> Row:
        """Two operators, of which the first stands still; judged when both have calmed down."""
        lane = self.lane
        first, second = lane.operator, lane.another_operator()
        first.more = {VARIABLE: self.stall.failpoint}
        try:
            await first.start()  # it has the Lease before the other one looks
            (self.task,) = await lane.begin("plain")
            await self._play(first, second)
        except (TimeoutError, AssertionError) as error:
            self.missed.append(repr(error))
        finally:
            await first.kill()
            if second.process is not None:
                await second.kill()
            first.more = {}
        # Whose name is on the Lease now: the next case need not wait until it runs out.
        first.pod, second.pod = second.pod, first.pod
        return await self._row()

    async def _play(self, first: OperatorProcess, second: OperatorProcess) -> None:
        sights, lane = self.lane.sights, self.lane
        await second.launch()
        if not await first.stands_still(FIRES_WITHIN_S):
            self.missed.append(f"{self.stall.failpoint} did not strike")
            return
        self.kills = 1
        begin, uid, epoch = time.monotonic(), lane.uid(self.task), lane.epoch(self.task)
        if not await sights.until(
            lambda: sights.resumed(uid, begin, epoch) is not None, TAKEOVER_WITHIN_S
        ):
            self.missed.append("nobody took over")
        self.resumed.append(sights.resumed(uid, begin, epoch) or 0.0)
        if self.stall.after_the_end:
            await lane.ended([self.task], PATIENCE_S)
        read = first.log.stat().st_size
        first.wake()
        await lane.ended([self.task], PATIENCE_S)
        await self._noticed(first, read)

    async def _noticed(self, first: OperatorProcess, begin: int) -> None:
        """Wait until the woken process knows that it was asleep, and has done what it was about to."""
        async with asyncio.timeout(NOTICES_WITHIN_S):
            while NOTICED not in _log(first, begin):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.05)
        await asyncio.sleep(SETTLES_S)

    async def _row(self) -> Row:
        lane, name = self.lane, f"[{self.stall.failpoint} {self.stall.after_the_end=}]"
        found, turns = await lane.judged([self.task])
        if self.missed:
            found += Findings(stuck=1, remarks=(f"{name} {self.missed}",))
        await lane.delete(self.task)
        return Row("L2", self.stall.row, 1, found, tuple(self.resumed), self.kills, turns)


def _log(operator: OperatorProcess, begin: int) -> str:
    return operator.log.read_bytes()[begin:].decode(errors="replace")
