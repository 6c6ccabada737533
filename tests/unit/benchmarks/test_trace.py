"""From the operator's notes to the split of each turn."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.trace import Span, Stored, Trace, journal_calls, load, medians, turns

TASK = "11111111-2222-3333-4444-555555555555"


def noted() -> Trace:
    return Trace(
        spans=[
            Span("sandbox", "run", 10.010, 10.030),
            Span("journal", "record_results", 10.032, 10.040),
            Span("journal", "mark_asking", 10.032, 10.038),
            Span("model", "ask", 10.032, 10.036),
            Span("journal", "append", 10.045, 10.055),
            Span("journal", "summarise", 10.048, 10.060),
        ],
        stored=[Stored(TASK, 1, 10.009, 1.0), Stored(TASK, 2, 10.056, 1.007)],
        peak_mib=55.5,
    )


def test_a_turn_is_split_into_what_was_awaited_and_the_rest() -> None:
    (turn,) = turns(noted(), TASK)
    assert asdict(turn) == {
        "wall": pytest.approx(47),
        "own": pytest.approx(47 - 20 - 8 - 11),
        "commit": pytest.approx(8 + 11),
        "tool": pytest.approx(20),
        "model": pytest.approx(4),
        "cpu": pytest.approx(7),
    }


def test_turns_are_those_of_one_task_in_order() -> None:
    trace = Trace(
        stored=[
            Stored(TASK, 2, 20.0, 2.0),
            Stored("another", 1, 11.0, 1.5),
            Stored(TASK, 1, 10.0, 1.0),
            Stored(TASK, 3, 50.0, 3.0),
        ]
    )
    assert [turn.wall for turn in turns(trace, TASK)] == [10_000, 30_000]
    assert turns(trace, "another") == []


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    noted().save(tmp_path / "trace")
    assert load(tmp_path / "trace") == noted()


def test_a_span_is_noted_also_when_what_was_awaited_fails() -> None:
    trace = Trace()
    with pytest.raises(OSError), trace.span("journal", "append"):
        raise OSError
    (span,) = trace.spans
    assert (span.port, span.op) == ("journal", "append") and span.begin <= span.end


def test_calls_of_the_journal_are_counted_as_they_end() -> None:
    assert journal_calls(noted(), TASK) == 3, "the summary ends after the last stored turn"


def test_medians_are_of_calls_within_the_task() -> None:
    trace = noted()
    trace.spans.append(Span("sandbox", "run", 9.0, 9.9))
    assert medians(trace, TASK) == {
        "journal.append": pytest.approx(10),
        "journal.mark_asking": pytest.approx(6),
        "journal.record_results": pytest.approx(8),
        "model.ask": pytest.approx(4),
        "sandbox.run": pytest.approx(20),
    }
