"""The same random worlds with every workspace on a claim: pods go, the ledger stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.property.plan import What, plan_of
from tests.property.scenario import GENERATION, Played, play

SEEDS = 150


def on_claim(seed: int) -> Played:
    played = play(replace(plan_of(seed), claim=True))
    assert not played.findings.broken, f"seed {seed}: {played.text}"
    return played


@pytest.mark.timeout(300)
def test_whatever_goes_wrong_a_task_on_a_claim_ends_as_it_should_in_its_generation() -> None:
    played = [on_claim(seed) for seed in range(SEEDS)]
    lost = [one for one in played if {What.POD, What.EVICTED} & set(one.struck)]
    assert len(lost) > SEEDS / 10, "pods are lost often enough to tell"
    assert not [one.text for one in played if GENERATION in one.noted]
