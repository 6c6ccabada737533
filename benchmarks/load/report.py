"""The figures of the load as fields, lines and targets."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.load.figures import LoadFigures
from benchmarks.tables import Target, header, row

THROUGHPUT_TARGET = 0.95
"""Least part of the endpoint's places that must be used."""
CPU_TARGET = 3.0
"""Most times of its bare HTTP calls that a turn may cost the operator in CPU."""
MEMORY_TARGET_MIB = 300.0


def fields(found: LoadFigures) -> dict[str, float]:
    """The stable fields of build/bench.json."""
    return {
        "tasks": found.tasks,
        "turns": found.turns,
        "slots": found.slots,
        "throughput_ratio": round(found.ratio, 3),
        "cpu_ms_per_turn": round(found.cpu_ms, 3),
        "cpu_ratio": round(found.cpu_ratio, 3),
        "rss_mb": round(found.peak_mib, 1),
        "http_429": found.refused,
    }


def table(found: LoadFigures) -> Iterator[str]:
    """For people."""
    yield from header(
        f"{found.tasks} tasks of {found.turns} turns, {found.slots} places, "
        f"model {found.latency_s:g} s",
        "found",
        "floor or ideal",
    )
    yield row("replies a second", f"{found.throughput:.2f}", f"{found.ideal:.2f}")
    yield row("CPU of the operator a turn (ms)", f"{found.cpu_ms:.1f}", f"{found.floor_cpu_ms:.1f}")
    yield row("memory of the operator (MiB, peak)", f"{found.peak_mib:.0f}", "")
    yield row("answers 429 and 503", f"{found.refused}", "0")


def targets(found: LoadFigures) -> tuple[Target, ...]:
    """The targets, each with what was found."""
    return (
        Target("places unused", round(1 - found.ratio, 3), round(1 - THROUGHPUT_TARGET, 3)),
        Target("CPU a turn / bare HTTP calls", round(found.cpu_ratio, 2), CPU_TARGET),
        Target("operator under load (MiB)", round(found.peak_mib, 1), MEMORY_TARGET_MIB),
        Target("answers 429 and 503", found.refused, 0),
    )
