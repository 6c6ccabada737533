"""L0: random tasks in random worlds, in pretended time, in so many processes.

A seed that breaks a promise is made smaller, and its remark names the command that plays it again.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from tests.proof.rows import Findings, Row
from tests.property.plan import plan_of
from tests.property.scenario import Played, play, replay
from tests.property.shrinking import shrink

LEVEL = "L0"
QUIET = "nothing goes wrong"
"""The row of seeds in which no disaster struck."""
CHUNK = 50
TELL_EVERY_S = 10.0
SHRINKS = 2
"""Plays that one chunk makes smaller, at most: a broken promise must not cost the whole time."""


@dataclass(frozen=True, slots=True)
class Seed:
    """What became of one seed."""

    number: int
    first: str
    """The disaster that struck first."""
    findings: Findings
    turns: int


def run(seeds: int, first: int, jobs: int, tell: Callable[[str], None]) -> tuple[Row, ...]:
    """Play so many seeds from `first` on; a row for each kind of disaster that struck first.

    So each seed counts in one row. Never raises for what a seed does: that is in its findings.
    """
    chunks = [
        range(begin, min(begin + CHUNK, first + seeds))
        for begin in range(first, first + seeds, CHUNK)
    ]
    played: list[Seed] = []
    told = began = time.monotonic()
    # Not forked: who calls may have threads, and a copy of a held lock is held for ever.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting: set[Future[list[Seed]]] = {pool.submit(play_chunk, chunk) for chunk in chunks}
        while waiting:
            done, waiting = wait(waiting, timeout=TELL_EVERY_S, return_when=FIRST_COMPLETED)
            found = [seed for future in done for seed in future.result()]
            played += found
            for seed in found:
                if seed.findings.broken:
                    tell(f"seed {seed.number}: {seed.findings.remarks[-1]}")
            if time.monotonic() - told >= TELL_EVERY_S or not waiting:
                told = time.monotonic()
                tell(f"{len(played)} of {seeds} seeds, {len(played) / (told - began):.0f} a second")
    return rows(played)


def rows(seeds: Iterable[Seed]) -> tuple[Row, ...]:
    """A row for each kind of disaster that struck first, by name."""
    by_kind: dict[str, list[Seed]] = {}
    for seed in sorted(seeds, key=lambda seed: seed.number):
        by_kind.setdefault(seed.first, []).append(seed)
    return tuple(
        Row(
            LEVEL,
            kind,
            runs=len(found),
            findings=reduce(add, (seed.findings for seed in found), Findings()),
            turns=sum(seed.turns for seed in found),
        )
        for kind, found in sorted(by_kind.items())
    )


def play_chunk(numbers: range) -> list[Seed]:
    """Play some seeds in this process."""
    left = SHRINKS
    found = []
    for number in numbers:
        seed, shrunk = _play(number, may_shrink=left > 0)
        left -= shrunk
        found.append(seed)
    return found


def _play(number: int, *, may_shrink: bool) -> tuple[Seed, bool]:
    try:
        played = play(plan_of(number))
        if not played.findings.broken:
            return _seed(number, played, played.findings), False
        small = shrink(played) if may_shrink else played
        remark = f"seed {number}: {_sentences(small)}; play it again with\n    {replay(small.plan)}"
        findings = replace(played.findings, remarks=(remark,))
        return _seed(number, played, findings), may_shrink
    # Whatever it is that broke, this seed did not end: it is counted, and the others are played.
    except Exception as error:  # noqa: BLE001
        remark = f"seed {number}: the simulation broke: {error!r}; {replay(plan_of(number))}"
        return Seed(number, QUIET, Findings(stuck=1, remarks=(remark,)), 0), False


def _seed(number: int, played: Played, findings: Findings) -> Seed:
    first = played.struck[0] if played.struck else QUIET
    return Seed(number, first, findings, played.turns)


def _sentences(played: Played) -> str:
    return "; ".join(dict.fromkeys(played.findings.remarks))
