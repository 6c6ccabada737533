"""What `make attack` writes, out of the notes of its runs."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tests.attack import notes, report
from tests.attack.notes import Note, Verdict
from tools.circumstances import Circumstances, with_table

HERE = Circumstances("0123456789ab", "2 cores", date(2026, 1, 2), 0.5)
PAGE = Path(__file__).resolve().parents[3] / "docs" / "security.md"


def note(name: str, verdict: Verdict = Verdict.HELD, category: str = "files") -> Note:
    return Note(category, name, verdict, 1.0)


RUNS = {
    "runc": [note("fifo"), note("race[file]", Verdict.FAILED), note("bomb", category="shell")],
    "gvisor": [note("fifo"), note("race[file]"), note("bomb", Verdict.LEFT_OUT, "shell")],
}


def test_a_case_that_runs_under_both_runtimes_counts_once() -> None:
    found = report.as_json(RUNS, HERE)
    assert found == {
        "commit": "0123456789ab",
        "machine": "2 cores",
        "cases": 3,
        "failed": 1,
        "runtimes": {
            "runc": {"cases": 3, "failed": 1},
            "gvisor": {"cases": 2, "failed": 0},
        },
    }


def test_a_case_that_fails_under_both_counts_twice() -> None:
    failing = [note("fifo", Verdict.FAILED)]
    assert report.as_json({"runc": failing, "gvisor": failing}, HERE)["failed"] == 2


def test_the_table_has_a_row_for_each_category_and_one_for_all() -> None:
    rows = [line for line in report.table(RUNS, HERE).splitlines() if line.startswith("|")]
    assert rows == [
        "| cases | runc: run | failed | gvisor: run | failed |",
        "|---|---:|---:|---:|---:|",
        "| files | 2 | 1 | 2 | 0 |",
        "| shell | 1 | 0 | 0 | 0 |",
        "| all | 3 | 1 | 2 | 0 |",
    ]


def test_every_case_is_named_with_what_was_odd_about_it() -> None:
    names = [line for line in report.table(RUNS, HERE).splitlines() if line.startswith("- ")]
    assert names == [
        "- **files**: fifo; race[file] (runc: failed).",
        "- **shell**: bomb (gvisor: left out).",
    ]


def test_a_case_that_one_run_did_not_come_to_is_told() -> None:
    told = report.table({"runc": [note("fifo")], "gvisor": []}, HERE)
    assert "fifo (gvisor: not run)" in told


def test_the_table_says_of_what_and_where() -> None:
    first = report.table(RUNS, HERE).splitlines()[0]
    assert "0123456789ab" in first and "2 cores" in first and "2026-01-02" in first


def test_a_page_takes_the_table_twice_and_keeps_the_rest() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = with_table(page, "new", report.BEGIN, report.END)
    assert once == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert with_table(once, "new", report.BEGIN, report.END) == once


def test_the_page_about_security_has_room_for_the_table() -> None:
    page = PAGE.read_text()
    assert page.count(report.BEGIN) == page.count(report.END) == 1
    assert page.index(report.BEGIN) < page.index(report.END)


def test_notes_come_back_as_they_were_left(tmp_path: Path) -> None:
    left = [note("fifo"), Note("shell", "bomb", Verdict.FAILED, 2.5, "call: why")]
    notes.write(tmp_path / "made" / "runc.json", left)
    assert notes.read(tmp_path / "made" / "runc.json") == left


@pytest.mark.parametrize("text", ["", "{", '[{"verdict": "maybe"}]'])
def test_what_are_no_notes_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes").write_text(text)
    with pytest.raises(ValueError):
        notes.read(tmp_path / "notes")
