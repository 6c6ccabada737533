"""When the status is written: at once when it matters, else at most once a second."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ratchet.core.conditions import Phase, Reason
from ratchet.core.replies import Usage
from ratchet.core.status import Summary
from ratchet.fakes.clock import BEGIN
from ratchet.shell.summaries import PAUSE, Summaries

FIRST = Summary(Phase.RUNNING, "Model", Reason.ACCEPTED, "", 0, 0, Usage(), 0, 0, ())


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def shown(first: Summary = FIRST) -> Summaries:
    summaries = Summaries()
    summaries.see(first, at(0))
    summaries.written(at(0))
    return summaries


def test_the_first_summary_is_written_at_once() -> None:
    summaries = Summaries()
    assert summaries.due(at(0)) is None
    summaries.see(FIRST, at(0))
    assert summaries.due(at(0)) == at(0)


def test_nothing_is_due_once_it_is_written() -> None:
    assert shown().due(at(9)) is None


def test_a_change_of_phase_is_written_at_once() -> None:
    summaries = shown()
    summaries.see(replace(FIRST, phase=Phase.FAILED), at(0.1))
    assert summaries.due(at(0.1)) == at(0.1)


def test_an_activity_is_shown_when_it_has_lasted() -> None:
    summaries = shown()
    summaries.see(replace(FIRST, doing="Tool:bash"), at(5))
    assert summaries.due(at(5)) == at(5) + PAUSE


def test_two_ordinary_writes_are_a_pause_apart_however_much_changes() -> None:
    summaries = shown()
    for tenth in range(1, 10):
        summaries.see(replace(FIRST, turns=tenth), at(tenth / 10))
    assert summaries.due(at(0.9)) == at(0.1) + PAUSE


def test_a_change_that_was_taken_back_needs_no_write() -> None:
    summaries = shown()
    summaries.see(replace(FIRST, doing="Tool:bash"), at(5))
    summaries.see(FIRST, at(5.2))
    assert summaries.due(at(9)) is None


def test_a_write_that_failed_is_due_again() -> None:
    summaries = shown()
    summaries.failed()
    assert summaries.due(at(1)) == at(1)
