"""Figures as `build/bench.json`, as a table for people, and as the table of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.figures import Figures, RunFigures
from benchmarks.intervals import median, percentile
from benchmarks.load import report as load
from benchmarks.sandbox import report as sandbox
from benchmarks.tables import Target, header, row
from benchmarks.trace import Turn
from tools.circumstances import Circumstances

OWN_TARGET = 1.5
"""Most times of a bare create that our own part of a turn may take."""
FLOOR_TARGET = 3.0
"""Most times of the floor that a turn may take."""
WRITES_TARGET, SLOW_WRITES_TARGET = 3.0, 4.0
"""Most writes a turn, to one decimal: the Lease is renewed by the clock, not by the turn."""

FOREIGN = 1.1
"""Accepted writes of records and status for each that our journal made, above which some are not
ours."""

BEGIN, END = "<!-- table: written by `python -m benchmarks --write-docs` -->", "<!-- end -->"


def as_json(figures: Figures, circumstances: Circumstances) -> dict[str, Any]:
    """The stable fields that later versions are compared by."""
    turn = {
        "p50_ms": _p50(figures.fast, "wall"),
        "p99_ms": _p99(figures.fast, "wall"),
        "own_p50_ms": _p50(figures.fast, "own"),
        "own_p99_ms": _p99(figures.fast, "own"),
        "commit_p50_ms": _p50(figures.fast, "commit"),
        "tool_p50_ms": _p50(figures.fast, "tool"),
        "model_p50_ms": _p50(figures.fast, "model"),
        "floor_p50_ms": figures.floor.total,
        "ratio_to_floor": _p50(figures.fast, "wall") / figures.floor.total,
        "writes_per_turn": sum(figures.fast.writes.values()),
        "writes_per_turn_2s_model": sum(figures.slow.writes.values()),
        "cpu_ms_per_turn": _mean(figures.fast, "cpu"),
        "rss_mb": figures.peak_mib,
    }
    return {
        "commit": circumstances.commit,
        "machine": circumstances.machine,
        "turn": {name: round(value, 3) for name, value in turn.items()},
        "sandbox": sandbox.fields(figures.sandbox),
        "load": load.fields(figures.load),
    }


def targets(figures: Figures) -> tuple[Target, ...]:
    """The targets, each with what was found."""
    fast = figures.fast
    return (
        Target(
            "own time / bare create (p50)",
            round(_p50(fast, "own") / figures.floor.create, 2),
            OWN_TARGET,
        ),
        Target(
            "turn / floor (p50)", round(_p50(fast, "wall") / figures.floor.total, 2), FLOOR_TARGET
        ),
        Target("writes a turn", round(sum(fast.writes.values()), 1), WRITES_TARGET),
        Target(
            "writes a turn, slow model",
            round(sum(figures.slow.writes.values()), 1),
            SLOW_WRITES_TARGET,
        ),
        *sandbox.targets(figures.sandbox),
        *load.targets(figures.load),
    )


def table(figures: Figures, circumstances: Circumstances) -> str:
    """All that was found, as Markdown that reads well on a terminal, too."""
    parts = (
        _times(figures),
        _writes(figures),
        sandbox.table(figures.sandbox),
        load.table(figures.load),
        _targets(figures),
        _doubts(figures),
    )
    return "\n".join(
        (str(circumstances), *(line for part in parts for line in ("", *part)))
    ).rstrip()


def _times(figures: Figures) -> Iterator[str]:
    fast, slow, floor = figures.fast, figures.slow, figures.floor
    yield from header(
        f"{fast.run.turns} turns, model at once",
        "p50",
        "p99",
        "floor p50",
        f"{slow.run.turns} turns, model {slow.run.delay_s:g} s: p50",
        "p99",
    )
    floors = {"wall": floor.total, "commit": floor.create, "tool": floor.tool, "model": floor.model}
    labels = {"wall": "turn", "commit": "journal", "tool": "tool", "model": "model", "own": "own"}
    for name, label in labels.items():
        below = f"{floors[name]:.1f}" if name in floors else ""
        yield row(
            f"{label} (ms)",
            f"{_p50(fast, name):.1f}",
            f"{_p99(fast, name):.1f}",
            below,
            f"{_p50(slow, name):.1f}",
            f"{_p99(slow, name):.1f}",
        )
    yield row(
        "CPU (ms, mean)", f"{_mean(fast, 'cpu'):.1f}", "", "", f"{_mean(slow, 'cpu'):.1f}", ""
    )
    yield row("memory (MiB, peak)", f"{figures.peak_mib:.0f}", "", "", "", "")
    for name, ms in figures.ops.items():
        yield row(f"one {name} (ms)", f"{ms:.1f}", "", "", "", "")


def _writes(figures: Figures) -> Iterator[str]:
    fast, slow = figures.fast.writes, figures.slow.writes
    yield from header("writes a turn", "model at once", f"model {figures.slow.run.delay_s:g} s")
    for resource, verb in sorted({*fast, *slow}):
        both = [f"{part.get((resource, verb), 0.0):.2f}" for part in (fast, slow)]
        if {*both} != {"0.00"}:
            yield row(f"{verb} {resource}", *both)
    yield row("all", f"{sum(fast.values()):.2f}", f"{sum(slow.values()):.2f}")
    asked = (f"{run.journal_calls:.2f}" for run in (figures.fast, figures.slow))
    yield row("journal calls, by the operator", *asked)


def _targets(figures: Figures) -> Iterator[str]:
    yield from header("target", "found", "at most", "")
    for target in targets(figures):
        met = "met" if target.met else "NOT MET"
        yield row(target.what, f"{target.found:g}", f"{target.most:g}", met)


def _doubts(figures: Figures) -> Iterator[str]:
    """What makes the figures doubtful: others at work on the same cluster."""
    for run in (figures.fast, figures.slow):
        ours = sum(count for (resource, _), count in run.writes.items() if "agent" in resource)
        if ours > run.journal_calls * FOREIGN:
            yield (
                f"The cluster had other writers beside the {run.run.name} run: its writes are too "
                "many, and its times too long. Measure again when it is at rest."
            )


def _samples(run: RunFigures, name: str) -> Sequence[float]:
    return [_part(turn, name) for turn in run.turns]


def _part(turn: Turn, name: str) -> float:
    value: float = getattr(turn, name)
    return value


def _p50(run: RunFigures, name: str) -> float:
    return median(_samples(run, name))


def _p99(run: RunFigures, name: str) -> float:
    return percentile(_samples(run, name), 99)


def _mean(run: RunFigures, name: str) -> float:
    samples = _samples(run, name)
    return sum(samples) / len(samples)
