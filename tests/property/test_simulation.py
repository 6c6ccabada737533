"""Thousands of random tasks in random worlds; what must always be true is true of each.

`RATCHET_SEEDS` says how many seeds are tried (default 2,000). A single one is played by
`python -m tests.property.replay SEED`.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from ratchet.core.state import State

from tests.property.plan import KINDS, plan_of
from tests.property.scenario import BY_THE_WAY, play
from tests.property.shrinking import kept

CHUNKS = 20
SEEDS = int(os.environ.get("RATCHET_SEEDS", "2000"))
COUNTED = 400
OF_EACH = 20
"""Seeds of 2,000 in which each kind of disaster strikes, at least."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.timeout(600)
def test_whatever_goes_wrong_the_task_ends_as_it_should(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        kept(seed)


@pytest.mark.timeout(120)
def test_everything_that_can_go_wrong_does_go_wrong() -> None:
    seeds: Counter[str] = Counter()
    for seed in range(COUNTED):
        played = kept(seed)
        seeds.update({*played.struck, *played.noted})
    wanted = (*KINDS, *BY_THE_WAY)
    rare = {what: seeds[what] for what in wanted if seeds[what] < OF_EACH * COUNTED / 2_000}
    assert not rare, f"too rare in {COUNTED} seeds: {rare}"


@pytest.mark.timeout(120)
def test_no_call_runs_in_a_sandbox_that_has_not_said_what_its_class_requires_of_it() -> None:
    played = [kept(seed) for seed in range(COUNTED)]
    assert not [one.text for one in played if one.unconfined]
    required = [one for one in played if one.plan.network]
    assert {one.plan.network for one in required} == {"Enforced", "Open"} and len(required) > 99


def test_the_simulation_notices_a_call_that_does_not_wait_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(State, "confined", True)
    assert any(play(plan_of(seed)).unconfined for seed in range(60))


def test_the_same_seed_tells_the_same_story() -> None:
    for seed in range(20):
        assert play(plan_of(seed)) == play(plan_of(seed))
