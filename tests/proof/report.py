"""The proof's outcome as `build/prove.json`, and as the table that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.proof.rows import Row, percentile, resumes, rounded, to_json, total
from tools.circumstances import Circumstances

BEGIN, END = "<!-- table: written by `make prove` -->", "<!-- end -->"
LEVELS = {
    "none": "No fault at all",
    "L0": "L0, simulation: everything in one thread, virtual time, one seed a run",
    "L1": "L1, exhaustive: every failpoint, every fault, every passing; virtual time",
    "L2": "L2, real processes: operator, API server, sandbox server, runner",
    "L3": "L3, a cluster of its own: pods, node, control plane, charts",
}
"""Titles of the levels, in the order of the table."""
REAL = ("none", "L2", "L3")
"""Levels in real time."""
REMARKS_SHOWN = 20


def as_json(rows: Sequence[Row], circumstances: Circumstances, seed: int) -> dict[str, Any]:
    """The stable fields that later versions are compared by."""
    return {
        "commit": circumstances.commit,
        "machine": circumstances.machine,
        "date": circumstances.day.isoformat(),
        "seed": seed,
        "rows": [to_json(row) for row in rows],
        "total": totals(rows),
    }


def totals(rows: Sequence[Row]) -> dict[str, Any]:
    """What was done in all, and what was found."""
    found = total(rows)
    real = [*resumes(row for row in rows if row.level in REAL)]
    return {
        "seeds": _runs(rows, "L0"),
        "l1_cases": _runs(rows, "L1"),
        "l2_kills": sum(row.kills for row in rows if row.level == "L2"),
        "l3_faults": _runs(rows, "L3"),
        "undisturbed_turns": sum(row.turns for row in rows if row.level == "none"),
        "repeated": found.repeated,
        "lost": found.lost,
        "stuck": found.stuck,
        "holes": found.holes,
        "unknown_reported": found.unknown_reported,
        "unknown_silent": found.unknown_silent,
        "uncounted_requests": found.uncounted,
        "resume_p50_s": rounded(percentile(real, 0.5)),
        "resume_p99_s": rounded(percentile(real, 0.99)),
    }


def table(rows: Sequence[Row], circumstances: Circumstances, seed: int) -> str:
    """One table a level as Markdown that reads well on a terminal, too."""
    parts: list[str] = [f"{circumstances} Seed {seed}.", ""]
    for level, title in LEVELS.items():
        chosen = [row for row in rows if row.level == level]
        if chosen:
            parts += [f"### {title}", "", *_level(chosen), ""]
    parts += ["### Together", "", *_together(rows)]
    return "\n".join(parts)


def remarks(rows: Iterable[Row]) -> Iterator[str]:
    """What was found wrong, in words; the first of each row."""
    for row in rows:
        told = row.findings.remarks
        yield from (f"{row.level} {row.fault}: {remark}" for remark in told[:REMARKS_SHOWN])
        if len(told) > REMARKS_SHOWN:
            yield f"{row.level} {row.fault}: and {len(told) - REMARKS_SHOWN} more"


def _level(rows: Sequence[Row]) -> Iterator[str]:
    yield _cells(
        "fault",
        "runs",
        "repeated",
        "lost",
        "stuck",
        "holes",
        "silent",
        "reported",
        "p50 s",
        "p99 s",
    )
    yield _cells("---", *("---:" for _ in range(9)))
    for row in rows:
        yield _line(row.fault, [row])
    if len(rows) > 1:
        yield _line("all", rows)


def _line(name: str, rows: Sequence[Row]) -> str:
    found = total(rows)
    times = [*resumes(rows)]
    counts = (
        found.repeated, found.lost, found.stuck, found.holes, found.unknown_silent,
        found.unknown_reported,
    )  # fmt: skip
    seconds = (_seconds(percentile(times, 0.5)), _seconds(percentile(times, 0.99)))
    return _cells(name, str(sum(row.runs for row in rows)), *map(str, counts), *seconds)


def _together(rows: Sequence[Row]) -> Iterator[str]:
    yield "| what | number |"
    yield "| --- | ---: |"
    for name, value in totals(rows).items():
        yield f"| {name.replace('_', ' ')} | {'' if value is None else value} |"


def _cells(first: str, *others: str) -> str:
    return f"| {first:<44} | " + " | ".join(f"{cell:>8}" for cell in others) + " |"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _runs(rows: Iterable[Row], level: str) -> int:
    return sum(row.runs for row in rows if row.level == level)
