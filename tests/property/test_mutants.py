"""The simulation notices: each of these faults, put in on purpose, is found within a few seeds.

`make prove-mutants` tries all faults of the catalogue; here are those that are found at once.
"""

from __future__ import annotations

import pytest

from tests.proof.mutations import ALL
from tests.property.plan import plan_of
from tests.property.scenario import play

WITHIN = 60
"""Seeds."""
QUICK = (
    "results_before_the_effect",
    "tool_before_the_replys_commit",
    "no_generation_check",
    "key_without_the_turn",
    "commit_after_the_hand_over",
    "reserved_key_is_run_again",
    "attempts_share_an_id",
)


@pytest.mark.parametrize("mutation", QUICK)
def test_the_simulation_notices(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ALL[mutation](monkeypatch)
    assert any(play(plan_of(seed)).findings.broken for seed in range(WITHIN))
