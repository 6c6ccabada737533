"""L1: every failpoint, with every fault, at every passing, for several shapes of task.

A case that fails is printed with the command that plays it alone and tells its story::

    python -m tests.proof.matrix --case '<shape>/<point>/<fault>/<nth>'
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

from ratchet.failpoints import Fault, Point
from ratchet.shell.processfaults import Strike

from tests.proof.matrix_faults import AFTERWARDS, KILLS, STALLS, WAKES_S
from tests.proof.matrix_play import Played, play, undisturbed
from tests.proof.matrix_shapes import SHAPES
from tests.proof.rows import Findings, Row, percentile, total

TELL_EVERY = 500
CHUNK = 10


@dataclass(frozen=True, slots=True)
class Case:
    """One fault at one passing of a point, in one shape of task."""

    shape: str
    strike: Strike

    def __str__(self) -> str:
        strike = self.strike
        return f"{self.shape}/{strike.point}/{strike.fault}/{strike.nth}"

    @classmethod
    def of(cls, text: str) -> Case:
        """The case of this name. Raises ValueError."""
        shape, point, fault, nth = text.split("/")
        if shape not in SHAPES:
            raise ValueError(f"there is no shape {shape!r}; there are {', '.join(SHAPES)}")
        return cls(shape, Strike(Point(point), Fault(fault), int(nth)))


@dataclass(frozen=True, slots=True)
class Result:
    """All plays of a case: one, or for a stall one for each time to wake up."""

    case: Case
    plays: tuple[Played, ...]

    @property
    def findings(self) -> Findings:
        return sum((played.findings for played in self.plays), Findings())


@cache
def cases() -> Sequence[Case]:
    """All cases, by what the undisturbed run of each shape passes."""
    return tuple(
        Case(shape, Strike(point, fault, nth))
        for shape in SHAPES
        for point, times in undisturbed(shape).passed.items()
        for nth in range(1, times + 1)
        for fault in Fault
        if fault not in AFTERWARDS or (point, nth) in undisturbed(shape).succeeded
    )


def run_case(case: Case) -> Findings:
    """What is wrong with a case. Never raises."""
    return play_case(case).findings


def play_case(case: Case, story: list[str] | None = None) -> Result:
    """Play a case. Never raises: what breaks is in the findings."""
    wakes = WAKES_S if case.strike.fault in STALLS else (0.0,)
    plays = tuple(play(case.shape, case.strike, stands_s, story) for stands_s in wakes)
    return Result(case, plays)


def run(jobs: int, tell: Callable[[str], None]) -> tuple[Row, ...]:
    """The whole matrix, in so many processes."""
    every = cases()
    results = []
    with ProcessPoolExecutor(jobs) as pool:
        for result in pool.map(play_case, every, chunksize=CHUNK):
            results.append(result)
            if result.findings.broken:
                tell(failure(result))
            if len(results) % TELL_EVERY == 0:
                tell(f"{len(results)} of {len(every)} cases")
    return rows(results)


def rows(results: Iterable[Result]) -> tuple[Row, ...]:
    """A row for each point, and more for what is wrong with the matrix itself."""
    by_point: dict[Point, list[Result]] = {point: [] for point in Point}
    for result in results:
        by_point[result.case.strike.point].append(result)
    points = (_row(point, found) for point, found in by_point.items())
    return (*undisturbed_rows(), *points, *never_struck(by_point.values()))


def failure(result: Result) -> str:
    """What is wrong with a case, and how to play it alone."""
    remarks = "\n  ".join(dict.fromkeys(result.findings.remarks))
    return f"{result.case}:\n  {remarks}\n  replay: python -m tests.proof.matrix --case '{result.case}'"


def undisturbed_rows() -> Iterator[Row]:
    """A shape that is not sound without a fault: nothing is worth comparing with it."""
    for shape in SHAPES:
        findings = undisturbed(shape).findings
        if findings.broken:
            yield Row("L1", f"{shape}, no fault", 1, findings)


def never_struck(results: Iterable[Sequence[Result]]) -> Iterator[Row]:
    """An error in itself: a point, or a fault at it, that no case reached."""
    struck = {
        (result.case.strike.point, result.case.strike.fault)
        for each in results
        for result in each
        if all(played.struck for played in result.plays)
    }
    wanted = {(point, fault) for point in Point for fault in Fault}
    if missing := sorted(wanted - struck):
        remarks = tuple(f"{point}: {fault} never struck" for point, fault in missing)
        yield Row("L1", "never struck", len(missing), Findings(stuck=len(missing), remarks=remarks))


def _row(point: Point, results: Sequence[Result]) -> Row:
    named = [_named(result) for result in results]
    plays = [played for result in results for played in result.plays]
    return Row(
        "L1",
        point,
        len(results),
        sum(named, Findings()),
        tuple(played.resume_s for played in plays if played.resume_s is not None),
        sum(len(r.plays) for r in results if r.case.strike.fault in KILLS | STALLS),
        sum(played.turns for played in plays),
    )


def _named(result: Result) -> Findings:
    """The findings, their remarks with the name of the case."""
    findings = result.findings
    remarks = tuple(f"{result.case}: {remark}" for remark in findings.remarks)
    return replace(findings, remarks=remarks)


def main() -> int:
    """Play one case and tell its story, or play all. The exit code is 1 where something broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.matrix", description=__doc__)
    parser.add_argument("--case", type=Case.of, help="the one case to play")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if options.case is not None:
        return _one(options.case)
    begin = time.monotonic()
    found = run(options.jobs, lambda line: print(line, flush=True))
    for row in found:
        print(_line(row))
    counts = replace(total(found), remarks=())
    print(f"{sum(row.runs for row in found)} cases, {time.monotonic() - begin:.0f} s: {counts}")
    return 1 if counts.broken else 0


def _line(row: Row) -> str:
    counts = f"{row.runs:5} cases, {row.turns:6} turns, {row.kills:4} kills or stops"
    if not row.resume_s:
        return f"{row.fault:16} {counts}"
    half, most = (percentile(row.resume_s, share) for share in (0.5, 0.99))
    return f"{row.fault:16} {counts}, resumed after {half:6.2f} {most:6.2f} s (p50, p99)"


def _one(case: Case) -> int:
    story: list[str] = []
    result = play_case(case, story)
    print(*story, sep="\n")
    print(failure(result) if result.findings.broken else f"{case}: good")
    return 1 if result.findings.broken else 0


if __name__ == "__main__":
    sys.exit(main())
