"""What counts as a flood, and as a task that did not go on."""

from __future__ import annotations

from typing import Any

from tests.proof.resume import MOST_A_SECOND, Resumed, densest


def status(epoch: int = 2, lost: int = 1) -> dict[str, Any]:
    return {"owner": {"epoch": epoch}, "lostRequests": lost}


def test_the_densest_second_is_found_wherever_it_begins() -> None:
    assert densest([0.0, 0.9, 1.1, 1.5, 1.89, 3.0]) == 4
    assert densest([5.0, 1.0]) == 1
    assert densest([0.0, 1.0]) == 1
    assert densest([]) == 0


def test_a_restart_that_all_tasks_survive_without_a_flood_is_in_order() -> None:
    assert not Resumed([0.1 * n for n in range(200)], [status()] * 200).findings.broken


def test_a_task_that_did_not_go_on_is_stuck() -> None:
    assert Resumed([1.0], [status(), status(epoch=1)]).findings.stuck == 1


def test_a_request_that_is_not_counted_as_lost_is_told() -> None:
    assert Resumed([1.0], [status(lost=0), status()]).findings.uncounted == 1


def test_a_flood_is_told_with_its_size() -> None:
    found = Resumed([1.0] * (MOST_A_SECOND + 1), [status()]).findings
    assert found.broken
    assert found.remarks == (f"{MOST_A_SECOND + 1} requests in a second",)
