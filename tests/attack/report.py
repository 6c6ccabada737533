"""build/attack.json and the table of docs/security.md, out of the notes of each runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from tests.attack.notes import Note, Verdict
from tools.circumstances import Circumstances

BEGIN, END = "<!-- table: written by `make attack WRITE_DOCS=1` -->", "<!-- end -->"

Runs = Mapping[str, Sequence[Note]]
"""Notes by runtime."""


def as_json(runs: Runs, here: Circumstances) -> dict[str, Any]:
    """The stable fields: `cases` counts names, whatever the number of runtimes."""
    return {
        "commit": here.commit,
        "machine": here.machine,
        "cases": len({(note.category, note.name) for notes in runs.values() for note in notes}),
        "failed": sum(_count(notes, Verdict.FAILED) for notes in runs.values()),
        "runtimes": {
            runtime: {"cases": _ran(notes), "failed": _count(notes, Verdict.FAILED)}
            for runtime, notes in runs.items()
        },
    }


def table(runs: Runs, here: Circumstances) -> str:
    """How many cases of each category were run and failed, by runtime; then the names of all."""
    return "\n".join((str(here), "", *_counts(runs), "", *_names(runs)))


def _counts(runs: Runs) -> Iterator[str]:
    yield "| cases | " + " | ".join(f"{name}: run | failed" for name in runs) + " |"
    yield "|---|" + "---:|---:|" * len(runs)
    for category in (*_categories(runs), ""):
        cells = []
        for notes in runs.values():
            ours = [note for note in notes if category in ("", note.category)]
            cells += [f"{_ran(ours)}", f"{_count(ours, Verdict.FAILED)}"]
        yield f"| {category or 'all'} | " + " | ".join(cells) + " |"


def _names(runs: Runs) -> Iterator[str]:
    every = {(note.category, note.name) for notes in runs.values() for note in notes}
    verdicts = {
        (runtime, note.category, note.name): note.verdict
        for runtime, notes in runs.items()
        for note in notes
    }
    for category, names in groupby(sorted(every), key=lambda case: case[0]):
        yield f"- **{category}**: " + "; ".join(
            _named(name, [(r, verdicts.get((r, category, name))) for r in runs])
            for _, name in names
        ) + "."  # fmt: skip


def _named(name: str, verdicts: Sequence[tuple[str, Verdict | None]]) -> str:
    words = name.replace("_", " ")
    odd = [f"{r}: {v or 'not run'}" for r, v in verdicts if v is not Verdict.HELD]
    return f"{words} ({', '.join(odd)})" if odd else words


def _categories(runs: Runs) -> list[str]:
    return sorted({note.category for notes in runs.values() for note in notes})


def _ran(notes: Sequence[Note]) -> int:
    return len(notes) - _count(notes, Verdict.LEFT_OUT)


def _count(notes: Sequence[Note], verdict: Verdict) -> int:
    return sum(note.verdict is verdict for note in notes)
