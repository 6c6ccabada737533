"""`python -m tests.proof`: run the levels of the proof, print one table, write build/prove.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.edges.kube import ApiError, ApiUnreachable

from tests.cluster import ClusterError
from tests.proof import cluster, kills, matrix, report, simulation, undisturbed
from tests.proof.rows import Row, from_json, total
from tests.proof.settings import Settings
from tools.circumstances import Circumstances, with_table

REPO = Path(__file__).resolve().parents[2]
RESULT = REPO / "build" / "prove.json"
LOGS = REPO / "build" / "prove"
PAGE = REPO / "docs" / "reliability.md"
JOBS = 2

SEEDS, KILLS, FAULTS, LONG_FAULTS, TURNS = 20_000, 300, 24, 60, 1_000
"""The full size. RUNS=N gives N seeds, and the others in proportion."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each level is run."""

    seeds: int
    kills: int
    faults: int
    turns: int

    @classmethod
    def of(cls, runs: int, *, long: bool) -> Sizes:
        """In proportion to the seeds, and at least a little of everything."""
        share = runs / SEEDS
        faults = LONG_FAULTS if long else FAULTS
        return cls(
            runs,
            kills=max(5, round(KILLS * share)),
            faults=max(2, round(faults * share)),
            turns=max(30, round(TURNS * share)),
        )


Level = Callable[[], Sequence[Row]]


def main() -> int:
    """The exit code is 1 where a promise was broken, and 2 where the proof could not be run."""
    options = _arguments()
    here = Circumstances.now()
    sizes = Sizes.of(options.runs, long=options.long)
    LOGS.mkdir(parents=True, exist_ok=True)
    ours: list[Row] = []
    rows: list[Row] = []
    try:
        for name, level in _levels(sizes, options.seed).items():
            if name in options.levels:
                ours += _timed(name, level)
                kept = _kept(here, options.seed, options.levels) if options.add else []
                rows = [*kept, *ours]
                _store(rows, here, options.seed)
    except (ClusterError, ApiError, ApiUnreachable, OSError) as error:
        print(f"error: the proof could not be run: {error}\nlogs: {LOGS}", file=sys.stderr)
        return 2
    text = report.table(rows, here, options.seed)
    print(f"\n{text}\n")
    for remark in report.remarks(rows):
        print(remark)
    print(f"written: {RESULT.relative_to(REPO)}")
    if options.write_docs:
        PAGE.write_text(with_table(PAGE.read_text(), text, report.BEGIN, report.END))
        print(f"written: {PAGE.relative_to(REPO)}")
    return 1 if total(rows).broken else 0


def _levels(sizes: Sizes, seed: int) -> dict[str, Level]:
    def settings() -> Settings:
        return Settings.of_checkout(LOGS, seed=seed, kills=sizes.kills, turns=sizes.turns)

    return {
        "L0": lambda: simulation.run(sizes.seeds, seed, JOBS, _tell),
        "L1": lambda: matrix.run(JOBS, _tell),
        "none": lambda: asyncio.run(undisturbed.run(settings(), _tell)),
        "L2": lambda: asyncio.run(kills.run(settings(), _tell)),
        "L3": lambda: asyncio.run(cluster.run(sizes.faults, seed, LOGS, _tell)),
    }


def _timed(name: str, level: Level) -> Sequence[Row]:
    print(f"{report.LEVELS[name]} ...", flush=True)
    begin = time.monotonic()
    rows = level()
    found = total(rows)
    verdict = "BROKEN" if found.broken else "good"
    print(f"{name}: {verdict}, {time.monotonic() - begin:.0f} s", flush=True)
    return rows


def _tell(line: str) -> None:
    print(f"  {line}", flush=True)


def _store(rows: Sequence[Row], here: Circumstances, seed: int) -> None:
    """Written after each level, so that an interrupted run leaves what it found."""
    RESULT.write_text(json.dumps(report.as_json(rows, here, seed), indent=2) + "\n")


def _kept(here: Circumstances, seed: int, again: Sequence[str]) -> list[Row]:
    """The rows of an earlier run of this commit and seed, less those of levels that run again."""
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if (found.get("commit"), found.get("seed")) != (here.commit, seed):
        return []
    return [row for row in map(from_json, found["rows"]) if row.level not in again]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("--runs", type=int, default=SEEDS, help="seeds of L0; the rest follows")
    parser.add_argument("--seed", type=int, default=1, help="the first seed; the others follow")
    parser.add_argument("--long", action="store_true", help=f"{LONG_FAULTS} faults in L3")
    parser.add_argument(
        "--levels", type=_level_names, default=tuple(report.LEVELS),
        help=f"some of {','.join(report.LEVELS)}",
    )  # fmt: skip
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep the other levels' rows of this commit and seed, also of runs side by side",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help=f"write the table into {PAGE.name}"
    )
    return parser.parse_args()


def _level_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in report.LEVELS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such level: {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
