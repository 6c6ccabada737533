"""Overlapping time counts once; percentiles are those of statistics books."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.intervals import clip, median, percentile, union_length

ticks = st.integers(0, 60)
intervals = st.lists(st.tuples(ticks, ticks).map(lambda pair: (min(pair), max(pair))))


@pytest.mark.parametrize(
    ("given_intervals", "length"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(1, 3), (5, 6)], 3),
        ([(1, 3), (2, 4)], 3),
        ([(1, 9), (2, 4), (3, 5)], 8),
        ([(5, 6), (1, 3), (3, 5)], 5),
        ([(2, 2)], 0),
    ],
)
def test_what_overlaps_counts_once(
    given_intervals: list[tuple[float, float]], length: float
) -> None:
    assert union_length(given_intervals) == length


@given(intervals)
def test_the_union_is_as_long_as_the_ticks_that_it_covers(found: list[tuple[int, int]]) -> None:
    covered = {tick for begin, end in found for tick in range(begin, end)}
    assert union_length(found) == len(covered)


def test_only_what_lies_within_is_left() -> None:
    found = [(0.0, 2.0), (1.0, 12.0), (4.0, 5.0), (11.0, 12.0), (0.0, 1.0), (10.0, 11.0)]
    assert clip(found, (1.0, 10.0)) == [(1.0, 2.0), (1.0, 10.0), (4.0, 5.0)]


def test_percentiles() -> None:
    hundred = [float(n) for n in range(101)]
    assert (median(hundred), percentile(hundred, 50), percentile(hundred, 99)) == (50, 50, 99)
    assert percentile([7.0], 99) == 7
    assert percentile([1.0, 2.0], 99) == pytest.approx(1.99)


def test_no_samples_are_no_figure() -> None:
    with pytest.raises(ValueError):
        median([])
    with pytest.raises(ValueError):
        percentile([], 99)
