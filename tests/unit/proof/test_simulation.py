"""L0 as a level of the proof: rows that add up, and faults that are counted under the right word."""

from __future__ import annotations

import pytest

from tests.proof import simulation
from tests.proof.mutations import ALL
from tests.proof.rows import total
from tests.property.plan import KINDS
from tests.property.scenario import RUN


@pytest.mark.timeout(120)
def test_rows_are_of_disasters_and_add_up_to_the_seeds() -> None:
    told: list[str] = []
    rows = simulation.run(70, 1, 2, told.append)
    assert sum(row.runs for row in rows) == 70
    assert {row.level for row in rows} == {"L0"}
    assert {row.fault for row in rows} <= {*KINDS, simulation.QUIET}
    assert len({row.fault for row in rows}) == len(rows) > 10
    assert sum(row.turns for row in rows) > 70
    assert not total(rows).broken, total(rows).remarks
    assert told[-1].startswith("70 of 70 seeds")


@pytest.mark.timeout(120)
def test_a_broken_promise_is_counted_and_can_be_played_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ALL["reserved_key_is_run_again"](monkeypatch)
    found = total(simulation.rows(simulation.play_chunk(range(40))))
    assert found.repeated and not found.stuck
    assert all(f"{RUN} tests.property.replay '" in remark for remark in found.remarks)


def test_a_seed_that_cannot_be_played_is_counted_as_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_plan: object) -> None:
        raise RuntimeError("deadlock")

    monkeypatch.setattr(simulation, "play", broken)
    (row,) = simulation.rows(simulation.play_chunk(range(1)))
    assert (row.runs, row.findings.stuck) == (1, 1)
    assert "deadlock" in row.findings.remarks[0]
