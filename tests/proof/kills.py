"""L2: real processes, killed and lied to. `python -m tests.proof.kills --only TEXT`

A real operator under kopf, the real API server, sandbox servers and runners as processes, a strict
model, and an outside ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.edges.kube import ApiError, ApiUnreachable

from tests.proof import (
    kills_cases,
    kills_points,
    kills_proxy,
    kills_random,
    kills_sandbox,
    kills_stalls,
    resume,
)
from tests.proof.kills_cases import COUNTS, Case, Play, broken
from tests.proof.kills_random import Kind, Storm
from tests.proof.kills_stalls import Stall
from tests.proof.lane import Lane, lane
from tests.proof.rows import Findings, Row, total
from tests.proof.settings import LANES, Settings
from tests.proof.shapes import Effect, Turn
from tests.proof.stage import Stage, share, stage

TOLD_EVERY = 20
"""Jobs after which the progress is told."""
STALL_LANES = 2
"""These wait for Leases to run out most of the time."""
Tell = Callable[[str], None]
BROKE = (ApiError, ApiUnreachable, AssertionError, TimeoutError, OSError, KeyError)
"""What the parts raise where a job could not be done as it was meant."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something that is done in a lane that nobody else uses meanwhile, for a row."""

    row: str
    play: Callable[[Lane], Awaitable[Row]]

    async def done(self, place: Lane) -> Row:
        """Do it. What could not be done is told, and stops no other job."""
        try:
            return await self.play(place)
        except BROKE as error:
            await place.operator.kill()
            remark = f"it could not be run: {error!r}\n{place.operator.tail(5)}"
            return Row("L2", self.row, 1, Findings(stuck=1, remarks=(remark,)))


async def run(settings: Settings, tell: Tell) -> tuple[Row, ...]:
    """All rows, those of the same name put together."""
    begin = time.monotonic()
    async with stage(settings, _shapes) as here:
        async with asyncio.TaskGroup() as group:
            cases = group.create_task(_in_lanes(here, _jobs(settings), "case", tell))
            stalls = group.create_task(
                _in_lanes(here, _stalls(settings), "stall", tell, STALL_LANES)
            )
            lies = group.create_task(kills_proxy.run(here, tell))
        rows = cases.result() + stalls.result() + lies.result()
        left = settings.kills - sum(row.kills for row in rows)
        storms = _storms(settings, max(0, left))
        rows += await _in_lanes(here, storms, "storm", tell)
        if settings.only in resume.ROW:
            job = Job(resume.ROW, resume.restart)
            rows += await _in_lanes(here, [job], "resume", tell, 1)
    tell(f"{sum(row.kills for row in rows)} kills in {time.monotonic() - begin:.0f} s")
    return tuple(together(rows))


def _shapes(effect: Effect) -> dict[str, tuple[Turn, ...]]:
    return {**kills_cases.shapes(effect), **kills_random.shapes(effect)}


def _jobs(settings: Settings) -> list[Job]:
    """Everything but the kills at random, in an order that does not depend on luck."""
    chance = random.Random(settings.seed)
    every = (*kills_sandbox.cases(), *kills_points.cases(chance))
    return [_job(case) for case in every if settings.only in case.row]


def _stalls(settings: Settings) -> list[Job]:
    wanted = [stall for stall in kills_stalls.stalls() if settings.only in stall.row]

    def job(stall: Stall) -> Job:
        return Job(stall.row, lambda place: kills_stalls.Play(place, stall).run())

    return [job(stall) for stall in wanted]


def _job(case: Case) -> Job:
    return Job(case.row, lambda place: Play(place, case).run())


def _storms(settings: Settings, kills: int) -> list[Job]:
    """The kills at random, of each kind as many as its share, in parts for the lanes."""
    parts = [
        (kind, part)
        for kind in kills_random.KINDS
        if settings.only in kind.row
        for part in share(round(kills * kind.share), settings.lanes)
        if part
    ]

    def storm(index: int, kind: Kind, part: int) -> Job:
        chance = random.Random(settings.seed * 1000 + index)
        return Job(kind.row, lambda place: Storm(place, kind, chance).run(part))

    return [storm(index, *each) for index, each in enumerate(parts)]


async def _in_lanes(
    here: Stage, jobs: Sequence[Job], name: str, tell: Tell, lanes: int = 0
) -> list[Row]:
    """Do the jobs in so many lanes (0: as the settings say), each job in the first that is free."""
    waiting = list(reversed(jobs))
    rows: list[Row] = []

    async def work(place: Lane) -> None:
        while waiting:
            row = await waiting.pop().done(place)
            rows.append(row)
            if row.findings.broken:
                tell(broken(row, here.settings))
            if len(rows) % TOLD_EVERY == 0:
                tell(f"{name}: {len(rows)} of {len(jobs)}")

    async with AsyncExitStack() as stack:
        places = [
            await stack.enter_async_context(lane(here, f"{name}-{index}"))
            for index in range(min(lanes or here.settings.lanes, len(jobs)))
        ]
        async with asyncio.TaskGroup() as group:
            for place in places:
                group.create_task(work(place))
    return rows


def together(rows: Iterable[Row]) -> list[Row]:
    """Rows of one name as one, in the order of their first."""
    found: dict[str, Row] = {}
    for row in rows:
        before = found.get(row.fault)
        found[row.fault] = row if before is None else _sum(before, row)
    return list(found.values())


def _sum(one: Row, other: Row) -> Row:
    return replace(
        one,
        runs=one.runs + other.runs,
        findings=one.findings + other.findings,
        resume_s=one.resume_s + other.resume_s,
        kills=one.kills + other.kills,
        turns=one.turns + other.turns,
    )


def summary(row: Row) -> str:
    """A row in one line."""
    counts = {name: count for name in COUNTS if (count := getattr(row.findings, name))}
    slowest = f", went on within {max(row.resume_s):.1f} s" if row.resume_s else ""
    return f"{row.fault}: {row.runs} runs, {row.kills} kills{slowest} {counts or ''}"


def main() -> int:
    """The exit code is 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=LANES)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--logs", type=Path, default=Path("build/prove"))
    options = parser.parse_args()
    settings = Settings.of_checkout(options.logs, seed=options.seed, kills=options.kills)
    settings = replace(settings, only=options.only, lanes=options.lanes)
    rows = asyncio.run(run(settings, lambda line: print(line, flush=True)))
    for row in rows:
        print(summary(row))
    return 1 if total(rows).broken else 0


if __name__ == "__main__":
    sys.exit(main())
