"""A plan that fails becomes a short one, which one command plays again."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

import pytest

from tests.proof.mutations import ALL
from tests.property import replay
from tests.property.plan import Plan, plan_of
from tests.property.scenario import RUN, Played, play
from tests.property.shrinking import broken_promises, kept, shrink

MANY = 5
"""Disasters that the plan begins with, at least."""


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_is_the_same_after_being_written_down(seed: int) -> None:
    plan = plan_of(seed)
    assert Plan.from_json(plan.to_json()) == plan


def broken_by_a_mutant(monkeypatch: pytest.MonkeyPatch) -> Played:
    """A long plan that fails because a new sandbox is asked for the calls of a lost one."""
    ALL["no_generation_check"](monkeypatch)
    for seed in range(1_000):
        plan = plan_of(seed)
        if len(plan.disasters) >= MANY and (played := play(plan)).findings.repeated:
            return played
    raise AssertionError("no seed was broken by the mutant")


@pytest.mark.timeout(300)
def test_a_failing_plan_shrinks_to_the_one_disaster_that_matters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = broken_by_a_mutant(monkeypatch)
    small = shrink(found)
    (disaster,) = small.plan.disasters
    assert disaster.what in ("pod lost", "pod evicted")
    assert len(small.plan.answers) <= 2 and small.plan.deadline_s is None
    assert broken_promises(small) & broken_promises(found)

    command, arguments = small.text.rsplit("\n", 1)[1].split(" tests.property.replay ")
    assert command.endswith("python -m")
    monkeypatch.setattr(sys, "argv", ["replay", *shlex.split(arguments)])
    assert replay.main() == 1
    assert small.findings.remarks[0] in capsys.readouterr().out


def test_a_seed_that_fails_says_how_to_play_the_small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    ALL["results_before_the_effect"](monkeypatch)
    with pytest.raises(AssertionError, match=r"seed 0: .*never happened") as failure:
        kept(0, tries=10)
    command = str(failure.value).splitlines()[-1]
    assert command.startswith(f"{RUN} tests.property.replay '")


def test_a_plan_that_keeps_all_promises_is_played_again_with_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = replace(plan_of(1), disasters=())
    monkeypatch.setattr(sys, "argv", ["replay", quiet.to_json()])
    assert replay.main() == 0
    assert "all promises are kept" in capsys.readouterr().out
