"""How fast an endpoint answered while all of its places were wanted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEFT_OUT = 0.1
"""Part of the answers at either end: tasks begin one after the other, and end so."""


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, in seconds of one clock."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def part_within(self, other: Span) -> float:
        """Which part of this one lies within another."""
        both = min(self.end, other.end) - max(self.begin, other.begin)
        return max(0.0, both) / self.seconds


def busy(requests: Sequence[Span]) -> Span:
    """The time between the first tenth of the answers and the last."""
    ends = sorted(request.end for request in requests)
    cut = int(len(ends) * LEFT_OUT)
    return Span(ends[cut], ends[-1 - cut])


def replies(requests: Sequence[Span], window: Span) -> float:
    """Replies in a window, where one that is partly in it counts in part.

    Whole ones would not do: many tasks that began together are answered together.
    """
    return sum(request.part_within(window) for request in requests)


def at(samples: Sequence[tuple[float, float]], moment: float) -> float:
    """The value at a moment, between those of the two samples around it."""
    before, after = samples[0], samples[-1]
    for sample in samples:
        if sample[0] <= moment:
            before = sample
        else:
            after = sample
            break
    if after[0] <= before[0]:
        return before[1]
    share = (moment - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1])
