"""`python -m tests.proof.mutants`: does the proof find faults that are put in on purpose?

Each fault of `tests.proof.mutations` has to be found by the simulation, by the matrix, or by tests
that are named here; who found it is tried in this order. A fault that survives is an error: the exit
code is then 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import pytest

from tests.proof import matrix
from tests.proof.mutated import REPO, environment
from tests.proof.mutations import ALL
from tests.property.plan import plan_of
from tests.property.scenario import play

SEEDS = 3_000
"""Seeds that the simulation tries with a fault."""
TESTS_WITHIN_S = 300

_LEDGER = "tests/unit/sandbox/test_ledger.py"
_SERVER = "tests/unit/sandbox/test_server.py"
_RACES = "tests/property/test_journal_races.py"
_SHUTS_OUT = "test_an_owner_that_takes_a_turn_over_shuts_the_one_out_that_made_it"
TESTS: dict[str, tuple[str, ...]] = {
    "ledger_is_not_flushed": (f"{_LEDGER}::test_writes_wait_for_the_disk",),
    "commit_after_the_hand_over": (
        f"{_SERVER}::test_killed_after_a_reservation_the_runner_tells_what_became_of_it",
    ),
    "no_epoch_check_in_the_sandbox": (
        f"{_SERVER}::test_a_lower_epoch_is_refused_and_a_higher_one_remembered",
    ),
    "a_found_turn_is_not_fenced": (f"{_RACES}::{_SHUTS_OUT}",),
    "a_mark_outlives_its_count": (
        "tests/contract/test_journal.py"
        "::test_the_mark_of_a_request_goes_with_the_summary_that_counts_it",
    ),
    "no_digest_check_of_the_early_answer": ("tests/unit/core/test_early_answers.py",),
}
"""Faults that live behind what the simulation pretends, or whose harm needs a rare coincidence."""
SIMULATED = tuple(name for name in ALL if name != "ledger_is_not_flushed")
"""A kill of a process does not show what was not flushed: only the loss of a machine would."""
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Caught:
    """Who found a fault, after how much, and what it saw. `by` is empty where nobody did."""

    mutation: str
    by: str = ""
    after: str = ""
    seconds: float = 0.0
    saw: str = ""


def try_mutation(mutation: str, seeds: int) -> Caught:
    """Put a fault in, and see who finds it. Undone at the end."""
    begin = time.monotonic()
    for by, look in _watchers(mutation, seeds):
        found = look()
        if found is not None:
            after, saw = found
            return Caught(mutation, by, after, time.monotonic() - begin, saw)
    return Caught(mutation, seconds=time.monotonic() - begin)


Found = tuple[str, str]
"""After how much, and what was seen."""


def _watchers(mutation: str, seeds: int) -> Iterator[tuple[str, Callable[[], Found | None]]]:
    if mutation in TESTS:
        yield "tests", lambda: by_tests(mutation)
    if mutation in SIMULATED:
        yield "simulation", lambda: by_simulation(mutation, seeds)
        yield "matrix", lambda: by_matrix(mutation)


def by_simulation(mutation: str, seeds: int) -> Found | None:
    """The first seed that breaks a promise."""
    with pytest.MonkeyPatch.context() as patch:
        ALL[mutation](patch)
        for seed in range(seeds):
            findings = play(plan_of(seed)).findings
            if findings.broken:
                return f"seed {seed}", findings.remarks[0]
    return None


def by_matrix(mutation: str) -> Found | None:
    """The first case that breaks a promise."""
    every = matrix.cases()
    with pytest.MonkeyPatch.context() as patch:
        ALL[mutation](patch)
        for number, case in enumerate(every):
            findings = matrix.run_case(case)
            if findings.broken:
                return f"case {number}", f"{case}: {findings.remarks[0]}"
    return None


def by_tests(mutation: str) -> Found | None:
    """Whether tests that pass fail with the fault."""
    wanted = TESTS[mutation]
    healthy = _pytest(wanted, [])
    if healthy.returncode != 0:
        raise RuntimeError(f"{wanted} fail without a fault:\n{healthy.stdout}")
    ill = _pytest(wanted, ["-p", "tests.proof.mutated"], mutation)
    # 1: tests were run and some failed; all else is no finding.
    if ill.returncode != 1:
        return None
    failed = [line for line in ill.stdout.splitlines() if line.startswith("FAILED")]
    return f"{len(failed)} tests", failed[0].removeprefix("FAILED ")


def _pytest(
    tests: Sequence[str], options: Sequence[str], mutation: str = ""
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", *options, *tests]
    return subprocess.run(
        command,
        cwd=REPO,
        env=environment(mutation),
        capture_output=True,
        text=True,
        timeout=TESTS_WITHIN_S,
        check=False,
    )


def run(mutations: Sequence[str], seeds: int, tell: Callable[[str], None]) -> list[Caught]:
    """Try faults, two at a time; each is told when it is decided."""
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        trials = [pool.submit(try_mutation, mutation, seeds) for mutation in mutations]
        found = []
        for trial in as_completed(trials):
            found.append(trial.result())
            tell(line(found[-1]))
    return sorted(found, key=lambda caught: list(ALL).index(caught.mutation))


def line(caught: Caught) -> str:
    """A row of the table."""
    name = caught.mutation.replace("_", " ")
    by = f"{caught.by}, {caught.after}" if caught.by else "NOBODY"
    return f"{name:38} {by:22} {caught.seconds:6.1f} s  {caught.saw[:90]}".rstrip()


def main() -> int:
    """The exit code is 1 where a fault survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.mutants", description=__doc__)
    parser.add_argument("mutation", nargs="*", choices=[[], *ALL], help="all, if none is named")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    caught = run(options.mutation or tuple(ALL), options.seeds, lambda row: print(row, flush=True))
    survivors = [each.mutation for each in caught if not each.by]
    print("\n" + "\n".join(map(line, caught)))
    print(f"{len(caught)} faults were put in, {len(survivors)} survived", *survivors)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
