"""One case of a failpoint: a task, processes that die or misbehave at named places, and a judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.e2e.operator_process import OperatorProcess
from tests.proof.lane import Lane
from tests.proof.node import RunningSandbox
from tests.proof.rows import Findings, Row
from tests.proof.settings import Settings
from tests.proof.shapes import FINISH, Effect, Turn, call, marks

FIRES_WITHIN_S = 60.0
"""How long a failpoint may take to strike."""
STANDS_STILL_S = 5.0
"""How long a part of the sandbox stands still that is stopped."""
PATIENCE_S = 90.0
"""How long a task may take to its end after the last fault."""
VARIABLE = "RATCHET_FAILPOINT"
SILENCE = {"RATCHET_FAILPOINT_SILENCE_S": "2"}


def shapes(effect: Effect) -> Mapping[str, tuple[Turn, ...]]:
    """What tasks of cases do."""
    blocks = "<<<<<<< SEARCH\none\n=======\ntwo\n>>>>>>> REPLACE\n"
    return {
        "plain": (marks(effect), marks(effect, 3), marks(effect), FINISH),
        "slow": (marks(effect), marks(effect, after="sleep 2"), marks(effect), FINISH),
        "stopped": (marks(effect), marks(effect, after="sleep 60"), FINISH),
        "edit": (
            call("write_file", path="a.txt", content="one\n"),
            call("search_replace", path="a.txt", content=blocks),
            marks(effect),
            FINISH,
        ),
    }


@dataclass(frozen=True, slots=True)
class Case:
    """What is to go wrong for one task."""

    row: str
    operators: tuple[str, ...]
    """RATCHET_FAILPOINT of each operator in turn; one without anything switched on follows."""
    shape: str = "plain"
    server: str = ""
    """Failpoints of the sandbox's server, and of its runner."""
    runner: str = ""
    act: str = ""
    """Done while the second turn's call runs: `cancel`, `lose-pod`, `kill-runner`, `kill-server`."""
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """All that tells it from others, for remarks."""
        parts = (
            *self.operators,
            self.server,
            self.runner,
            self.act,
            self.shape,
            *self.spec.values(),
        )
        return " ".join(part for part in parts if part)


@dataclass(slots=True)
class Play:
    """One case as it is played in a lane."""

    lane: Lane
    case: Case
    task: str = ""
    log_begin: int = 0
    """Where this case begins in the operator's log."""
    kills: int = 0
    resumed: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    async def run(self) -> Row:
        """Play it, and judge what came of it."""
        lane, case = self.lane, self.case
        self.log_begin = size_of(lane.operator)
        self._switch_on(case.operators[0] if case.operators else "")
        await lane.operator.launch()
        (self.task,) = await lane.begin(case.shape, **case.spec)
        if lane.node is not None and (case.server or case.runner):
            lane.node.arm(self.task, server=case.server, runner=case.runner)
        acting = asyncio.create_task(self._act())
        try:
            await self._operators()
            await lane.ended([self.task], PATIENCE_S)
            await asyncio.wait_for(acting, FIRES_WITHIN_S)
        except (TimeoutError, AssertionError, KeyError, ProcessLookupError) as error:
            self.missed.append(repr(error))
        finally:
            acting.cancel()
            await lane.operator.kill()
        return await self._row()

    async def _operators(self) -> None:
        """Each operator until it dies, and then one that lives."""
        operator = self.lane.operator
        for failpoint, following in pairwise((*self.case.operators, "")):
            if "kill" not in failpoint:
                continue
            if await operator.died(FIRES_WITHIN_S) is None:
                await operator.kill()  # it did not strike; that is told at the end
            else:
                self.kills += 1
            killed, epoch = time.monotonic(), self.lane.epoch(self.task)
            self._switch_on(following)
            await operator.launch()
            if not following:
                await self._resume(killed, epoch)

    async def _resume(self, killed: float, epoch: int) -> None:
        """Wait for what the next owner writes first."""
        sights, uid = self.lane.sights, self.lane.uid(self.task)
        over = self.lane.is_over(self.task)
        if not over and await sights.until(
            lambda: sights.resumed(uid, killed, epoch) is not None, PATIENCE_S
        ):
            self.resumed.append(sights.resumed(uid, killed, epoch) or 0.0)

    def _switch_on(self, failpoint: str) -> None:
        self.lane.operator.more = {VARIABLE: failpoint, **SILENCE} if failpoint else {}

    async def _act(self) -> None:
        """Do to the running call what the case says."""
        if self.case.server or self.case.runner:
            await self._see_it_struck()
        if not self.case.act:
            return
        await self._called()
        if self.case.act == "cancel":
            await self.lane.cancel(self.task)
            return
        self.kills += 1
        await strike(self.lane.sandbox(self.task), self.case.act)

    async def _see_it_struck(self) -> None:
        """Wait for the sandbox's failpoint; what stands still then goes on after a while."""
        lane, fault = self.lane, f"{self.case.server} {self.case.runner}"
        async with asyncio.timeout(FIRES_WITHIN_S):
            while not self._struck():  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.02)
        self.kills += "=drop" not in fault
        struck, uid = time.monotonic(), lane.uid(self.task)
        if "=stop" in fault:
            await asyncio.sleep(STANDS_STILL_S)
            sandbox = lane.sandbox(self.task)
            (sandbox.continue_server if self.case.server else sandbox.continue_runner)()
        if not self.case.operators and await lane.sights.until(
            lambda: lane.sights.resumed(uid, struck) is not None, PATIENCE_S
        ):
            self.resumed.append(lane.sights.resumed(uid, struck) or 0.0)

    def _struck(self) -> list[str]:
        """Failpoints of the task's first sandbox that have struck."""
        try:
            return self.lane.sandbox(self.task).struck()
        except KeyError:
            return []

    async def _called(self) -> None:
        """Wait until the second turn's call has had its effect."""
        lane = self.lane
        async with asyncio.timeout(FIRES_WITHIN_S):
            await lane.sights.until(lambda: bool(lane.seen(self.task)), FIRES_WITHIN_S)
            key = f"{lane.uid(self.task)}/2/0"
            while not lane.stage.ledger.counts()[key]:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.05)

    async def _row(self) -> Row:
        case, lane = self.case, self.lane
        self.missed += [f"{missed} did not strike" for missed in self._silent()]
        found, turns = await lane.judged([self.task])
        if self.missed:
            found += Findings(stuck=1, remarks=tuple(self.missed))
        remarks = tuple(f"[{case.name}] {remark}" for remark in found.remarks)
        found = Findings(**{name: getattr(found, name) for name in COUNTS}, remarks=remarks)
        await lane.delete(self.task)
        return Row("L2", case.row, 1, found, tuple(self.resumed), kills=self.kills, turns=turns)

    def _silent(self) -> Iterable[str]:
        """Failpoints that were switched on and did not strike."""
        struck = set(struck_in(self.lane.operator, self.log_begin))
        for failpoint in ",".join(self.case.operators).split(","):
            if failpoint and told(failpoint) not in struck:
                yield failpoint
        if self.case.server or self.case.runner:
            done = self._struck()
            for failpoint in f"{self.case.server},{self.case.runner}".split(","):
                if failpoint and told(failpoint) not in done:
                    yield failpoint


COUNTS = (
    "repeated", "lost", "stuck", "holes", "unknown_reported", "unknown_silent", "uncounted",
)  # fmt: skip


def broken(row: Row, settings: Settings) -> str:
    """What is told of a row that broke a promise, and how to see it again."""
    again = f"python -m tests.proof.kills --seed {settings.seed} --only '{row.fault}'"
    return "\n".join((f"BROKEN {row.fault}; again: {again}", *row.findings.remarks))


async def strike(sandbox: RunningSandbox, act: str) -> None:
    """Do something to a sandbox."""
    match act:
        case "kill-runner":
            sandbox.kill_runner()
        case "kill-server":
            sandbox.kill_server()
        case "lose-pod":
            await sandbox.lose_pod()
        case "lose-node":
            await sandbox.lose_pod(vanish=True)
        case _:
            raise ValueError(f"nothing is known of {act!r}")


def told(failpoint: str) -> str:
    """What a process says when a failpoint strikes: `<point> <fault>`."""
    point, _, rest = failpoint.partition("=")
    return f"{point} {rest.partition('@')[0]}"


def size_of(operator: OperatorProcess) -> int:
    """Bytes in an operator's log so far."""
    return operator.log.stat().st_size if operator.log.exists() else 0


def struck_in(operator: OperatorProcess, begin: int) -> list[str]:
    """Failpoints that have struck, as `<point> <fault>`, from a byte of the operators' log on."""
    lines = operator.log.read_bytes()[begin:].decode(errors="replace").splitlines()
    return [line.removeprefix("failpoint ") for line in lines if line.startswith("failpoint ")]
