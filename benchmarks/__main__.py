"""`python -m benchmarks`: measure on the cluster of this checkout, print, write build/bench.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from pathlib import Path

import aiohttp

from benchmarks import load, report
from benchmarks.bare import NotMeasured
from benchmarks.figures import Figures
from benchmarks.measure import measure
from benchmarks.sandbox import measure as sandbox
from benchmarks.scripts import Run
from tests.cluster import ClusterError, current
from tests.e2e.kubectl import Refused
from tools.circumstances import Circumstances, with_table

REPO = Path(__file__).resolve().parents[1]
RESULT = REPO / "build" / "bench.json"
NOTES = REPO / "build" / "bench"
PAGE = REPO / "docs" / "benchmarks.md"
TURNS, QUICK_TURNS, QUICK_SLOW_TURNS = 200, 40, 5
SLOW_MODEL_S = 2.0
CANNOT_GO_ON = (
    NotMeasured, ClusterError, Refused, AssertionError, TimeoutError, aiohttp.ClientError,
)  # fmt: skip
"""What the parts raise that start and read the cluster, the operator and the model."""


def main() -> int:
    """The exit code is 2 where nothing could be measured, and 1 for `--check` and a missed target."""
    options = _arguments()
    fast = Run("fast", options.turns, 0.0)
    slow = Run("slow", options.slow_turns, SLOW_MODEL_S)
    shutil.rmtree(NOTES, ignore_errors=True)
    NOTES.mkdir(parents=True)
    here = Circumstances.now()
    try:
        figures = asyncio.run(_measured(options, fast, slow))
    except CANNOT_GO_ON as error:
        print(f"error: nothing was measured: {error!r}\nlogs: {NOTES}", file=sys.stderr)
        return 2
    _tell(figures, here, write_docs=options.write_docs)
    missed = [target for target in report.targets(figures) if not target.met]
    return 1 if options.check and missed else 0


async def _measured(options: argparse.Namespace, fast: Run, slow: Run) -> Figures:
    print("sandboxes: starts, calls, memory ...")
    sandboxes = await sandbox.measure(
        current(), NOTES, starts=options.starts, rounds=options.rounds
    )
    print(f"{options.tasks} tasks at one endpoint ...")
    loaded = await load.measure(current(), NOTES, options.tasks)
    print(f"{fast.turns} turns at once, then {slow.turns} with a model of {SLOW_MODEL_S:g} s ...")
    return await measure(current(), fast, slow, sandboxes, loaded, NOTES, profile=options.profile)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--turns", type=int, default=TURNS, help="with a model that answers at once"
    )
    parser.add_argument("--slow-turns", type=int, default=TURNS, help="with a slow model")
    parser.add_argument("--quick", action="store_true", help="few turns, for work on the code")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"write the table into {PAGE.name}"
    )
    parser.add_argument(
        "--profile", action="store_true", help=f"also leave a cProfile of the operator in {NOTES}"
    )
    options = parser.parse_args()
    options.starts, options.rounds = sandbox.STARTS, sandbox.ROUNDS
    options.tasks = load.TASKS
    if options.quick:
        options.turns, options.slow_turns = QUICK_TURNS, QUICK_SLOW_TURNS
        options.starts, options.rounds = sandbox.QUICK_STARTS, sandbox.QUICK_ROUNDS
        options.tasks = load.QUICK_TASKS
    return options


def _tell(figures: Figures, here: Circumstances, *, write_docs: bool) -> None:
    text = report.table(figures, here)
    print(text)
    found = report.as_json(figures, here)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\nwritten: {RESULT.relative_to(REPO)}")
    if write_docs:
        PAGE.write_text(with_table(PAGE.read_text(), text, report.BEGIN, report.END))
        print(f"written: {PAGE.relative_to(REPO)}")


if __name__ == "__main__":
    sys.exit(main())
