"""Thousands of random tasks in random worlds; what must always be true is true of each.

`RATCHET_SEEDS` says how many seeds are tried (default 2,000), `RATCHET_SEED` names a single one.
"""

from __future__ import annotations

import os

import pytest

from tests.property.scenario import Scenario

CHUNKS = 20
SEEDS = int(os.environ.get("RATCHET_SEEDS", "2000"))
ONE = os.environ.get("RATCHET_SEED")


@pytest.mark.skipif(ONE is not None, reason="a single seed is asked for")
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.timeout(600)
def test_whatever_goes_wrong_the_task_ends_as_it_should(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        Scenario(seed).run()


@pytest.mark.skipif(ONE is None, reason="RATCHET_SEED names no seed")
def test_one_seed() -> None:
    Scenario(int(ONE or 0)).run()
