"""A handful of the proof's rows with real processes: nothing is repeated, lost or stuck."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.proof import kills, undisturbed
from tests.proof.rows import Row, total
from tests.proof.settings import Settings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


async def _rows(cluster: Cluster, logs: Path, only: str, number: int = 0) -> tuple[Row, ...]:
    settings = Settings(cluster, logs, kills=number, turns=number, lanes=2, only=only)
    rows = await kills.run(settings, print)
    print(*map(kills.summary, rows), sep="\n")
    return rows


async def test_an_operator_killed_around_the_record_of_a_reply_goes_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    (row,) = await _rows(cluster, tmp_path, "operator at append-turn: killed")
    assert not row.findings.broken, row.findings.remarks
    assert (row.runs, row.kills, len(row.resume_s)) == (2, 2, 2)
    assert row.turns == 2 * 4


async def test_lost_answers_of_every_important_write_change_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    (row,) = await _rows(cluster, tmp_path, "API server: answer lost")
    assert not row.findings.broken, row.findings.remarks
    assert (row.runs, row.turns) == (10, 4)


async def test_a_lost_pod_in_a_call_is_reported_or_run_again_as_the_task_says(
    cluster: Cluster, tmp_path: Path
) -> None:
    (row,) = await _rows(cluster, tmp_path, "lose pod in a call")
    assert not row.findings.broken, row.findings.remarks
    assert (row.runs, row.findings.unknown_reported) == (2, 1)


async def test_operators_and_sandboxes_killed_at_random_cost_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    rows = await _rows(cluster, tmp_path, "killed at any moment", 8)
    assert not total(rows).broken, total(rows).remarks
    assert sum(row.kills for row in rows) >= 6


async def test_undisturbed_tasks_run_each_call_once(cluster: Cluster, tmp_path: Path) -> None:
    settings = Settings(cluster, tmp_path, turns=100, only="5 at once, tools of 0.05")
    (row,) = await undisturbed.run(settings, print)
    assert not row.findings.broken, row.findings.remarks
    assert row.turns >= 15
