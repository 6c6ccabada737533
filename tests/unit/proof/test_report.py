"""Rows add up, survive being stored, and make a table and a total that tell all of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from tests.proof import report
from tests.proof.__main__ import Sizes
from tests.proof.rows import Findings, Row, from_json, percentile, to_json, total
from tools.circumstances import Circumstances

HERE = Circumstances("c0ffee", "2 cores, 24 GiB", date(2026, 11, 22), 0.3)
ROWS = [
    Row("L0", "kill", 900),
    Row("L0", "stall", 100, Findings(unknown_reported=3)),
    Row("L1", "append-turn", 48, resume_s=(90.0,)),
    Row("L2", "append-turn kill-after", 2, resume_s=(1.0, 3.0), kills=2),
    Row("L3", "etcd killed", 1, resume_s=(8.0,)),
    Row("none", "20 tasks, tools of 50 ms", 20, turns=200),
]
FAULTS = ("repeated", "lost", "stuck", "holes", "unknown_silent", "uncounted")


def test_the_total_counts_each_level_in_its_own_way() -> None:
    found = report.totals(ROWS)
    assert (found["seeds"], found["l1_cases"], found["l2_kills"]) == (1000, 48, 2)
    assert (found["l3_faults"], found["undisturbed_turns"]) == (1, 200)
    assert found["unknown_reported"] == 3
    assert (found["resume_p50_s"], found["resume_p99_s"]) == (3.0, 8.0)


def test_reported_unknowns_break_no_promise() -> None:
    assert not total(ROWS).broken


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_breaks_the_promise(fault: str) -> None:
    bad = replace(ROWS[0], findings=Findings(**{fault: 1}))  # type: ignore[arg-type]
    assert total([*ROWS, bad]).broken


def test_fewer_requests_than_counted_break_nothing() -> None:
    assert not Findings(uncounted=-1).broken


def test_rows_survive_being_stored() -> None:
    bad = replace(ROWS[3], findings=Findings(repeated=1, remarks=("a/1/0 happened twice",)))
    assert from_json(json.loads(json.dumps(to_json(bad)))) == bad


def test_the_table_names_levels_faults_and_circumstances() -> None:
    text = report.table(ROWS, HERE, seed=7)
    for word in ("c0ffee", "2 cores", "2026-11-22", "Seed 7", "etcd killed", "### L2"):
        assert word in text
    assert "| l2 kills | 2 |" in text


def test_remarks_name_their_row_and_are_cut_where_they_are_many() -> None:
    bad = replace(ROWS[0], findings=Findings(lost=30, remarks=tuple(map(str, range(30)))))
    told = [*report.remarks([bad])]
    assert told[0] == "L0 kill: 0"
    assert told[-1] == "L0 kill: and 10 more"


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.5, 2.0), (0.75, 3.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_percentiles_are_values_that_were_measured(share: float, value: float) -> None:
    assert percentile((4.0, 1.0, 3.0, 2.0), share) == value


def test_nothing_has_no_percentile() -> None:
    assert percentile((), 0.5) is None


def test_the_sizes_follow_the_seeds_and_are_never_nothing() -> None:
    assert Sizes.of(20_000, long=False) == Sizes(20_000, 300, 24, 1000)
    assert Sizes.of(20_000, long=True).faults == 60
    assert Sizes.of(1, long=False) == Sizes(1, 5, 2, 30)
