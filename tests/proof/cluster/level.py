"""All trials of the level: those that disturb only their own tasks side by side, the others alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import ClusterError
from tests.proof.cluster.place import Place, place
from tests.proof.cluster.plan import KINDS, Trial, trials
from tests.proof.cluster.trial import Found, attempt
from tests.proof.rows import Findings, Row, total

LANES = 3
"""Trials that run side by side."""

Tell = Callable[[str], None]


async def run(
    faults: int, seed: int, folder: Path, tell: Tell, *, only: str = "", keep: bool = False
) -> tuple[Row, ...]:
    """So many faults on a cluster that is brought up for them; a row for each kind.

    `only`: kinds whose name contains this. `keep`: leave the cluster up. Raises ClusterError if
    there can be no cluster, or a fault breaks it twice.
    """
    plan = trials(faults, seed, only)
    async with place(plan, folder / "cluster", keep=keep) as here:
        done = await _side_by_side(here, [t for t in plan if not t.kind.alone], tell)
        for trial in plan:
            if trial.kind.alone:
                done.append(await _tried(here, trial, tell))
    return tuple(_rows(done))


async def _side_by_side(here: Place, plan: Sequence[Trial], tell: Tell) -> list[_Done]:
    waiting = list(reversed(plan))

    async def lane() -> list[_Done]:
        done = []
        while waiting:
            done.append(await _tried(here, waiting.pop(), tell))
        return done

    async with asyncio.TaskGroup() as group:
        lanes = [group.create_task(lane()) for _ in range(LANES)]
    return [done for lane in lanes for done in lane.result()]


@dataclass(frozen=True, slots=True)
class _Done:
    trial: Trial
    found: Found


async def _tried(here: Place, trial: Trial, tell: Tell) -> _Done:
    """A trial; where it broke the cluster, which is no fault of ours, it is done a second time."""
    begin = time.monotonic()
    try:
        found = await attempt(here, trial)
    except ClusterError as error:
        tell(f"{trial}: {error}; the cluster is mended, and the fault made again")
        await here.mend()
        found = await attempt(here, trial, suffix="2")
    tell(f"{trial}: {found} ({time.monotonic() - begin:.0f} s)")
    return _Done(trial, found)


def _rows(done: Iterable[_Done]) -> Iterable[Row]:
    every = list(done)
    for kind in KINDS:
        mine = [one.found for one in every if one.trial.kind is kind]
        if mine:
            yield Row(
                "L3",
                kind.title,
                runs=len(mine),
                findings=sum((found.findings for found in mine), Findings()),
                resume_s=tuple(second for found in mine for second in found.resume_s),
                kills=sum(found.kills for found in mine),
                turns=sum(found.turns for found in mine),
            )


def summary(rows: Sequence[Row], seconds: float) -> str:
    """One line about all rows."""
    faults = sum(row.runs for row in rows)
    verdict = "BROKEN" if total(rows).broken else "good"
    return f"{faults} faults of {len(rows)} kinds in {seconds:.0f} s: {verdict}"
