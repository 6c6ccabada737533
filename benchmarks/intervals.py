"""Arithmetic of time intervals and of samples. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

Interval = tuple[float, float]
"""Begin and end, in seconds of one clock; the end is never before the begin."""


def clip(intervals: Iterable[Interval], within: Interval) -> list[Interval]:
    """The parts of the intervals that lie within another one."""
    low, high = within
    cut = ((max(begin, low), min(end, high)) for begin, end in intervals)
    return [(begin, end) for begin, end in cut if begin < end]


def union_length(intervals: Iterable[Interval]) -> float:
    """How long at least one of the intervals lasted: what overlaps counts once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        if end > reached:
            total += end - max(begin, reached)
            reached = end
    return total


def median(samples: Sequence[float]) -> float:
    """The 50th percentile. Raises ValueError if there are no samples."""
    return float(statistics.median(samples))


def percentile(samples: Sequence[float], rank: int) -> float:
    """The percentile `rank` (1 to 99), with linear interpolation between the two next samples.

    Raises ValueError if there are no samples.
    """
    if len(samples) == 1:
        return samples[0]
    return statistics.quantiles(samples, n=100, method="inclusive")[rank - 1]
