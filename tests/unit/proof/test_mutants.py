"""The trial of faults put in on purpose: who finds them, and what it means when nobody does."""

from __future__ import annotations

import sys

import pytest

from tests.proof import mutants
from tests.proof.mutants import Caught, by_simulation, by_tests, line
from tests.proof.mutations import ALL


def test_each_fault_is_looked_for_by_somebody() -> None:
    assert set(mutants.TESTS) <= set(ALL)
    assert set(ALL) == {*mutants.TESTS, *mutants.SIMULATED}


def test_the_simulation_says_after_how_much_and_what_it_saw() -> None:
    assert by_simulation("results_before_the_effect", 0) is None
    found = by_simulation("results_before_the_effect", 20)
    assert found is not None
    after, saw = found
    assert after.startswith("seed ") and "is recorded as done and never happened" in saw


@pytest.mark.timeout(120)
def test_tests_that_fail_only_with_the_fault_find_it() -> None:
    found = by_tests("ledger_is_not_flushed")
    assert found is not None and found[0] == "1 tests"
    assert "test_writes_wait_for_the_disk" in found[1]


def test_a_fault_that_survives_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    survived = [Caught("key_without_the_turn"), Caught("no_generation_check", "tests", "1 tests")]
    monkeypatch.setattr(mutants, "run", lambda *_: survived)
    monkeypatch.setattr(sys, "argv", ["mutants"])
    assert mutants.main() == 1
    assert "2 faults were put in, 1 survived key_without_the_turn" in capsys.readouterr().out
    monkeypatch.setattr(mutants, "run", lambda *_: survived[1:])
    assert mutants.main() == 0


def test_a_row_names_the_fault_and_who_found_it() -> None:
    assert "NOBODY" in line(Caught("no_generation_check"))
    found = line(Caught("no_generation_check", "simulation", "seed 6", 0.9, "it happened twice"))
    assert found.split() == [
        "no", "generation", "check", "simulation,", "seed", "6", "0.9", "s", "it", "happened", "twice",
    ]  # fmt: skip
