"""How a load's throughput is read off its requests."""

from __future__ import annotations

import pytest

from benchmarks.load.figures import LoadFigures
from benchmarks.load.report import fields, targets
from benchmarks.load.window import Span, at, busy, replies

FOUND = LoadFigures(
    tasks=200, turns=10, slots=32, latency_s=2.0, throughput=15.6, cpu_ms=12.0, floor_cpu_ms=5.0,
    peak_mib=150.0, refused=0,
)  # fmt: skip


def waves(number: int, places: int, seconds: float, pause: float = 0.0) -> list[Span]:
    """Requests that fill all places at once, again and again, with a pause between."""
    begins = [wave * (seconds + pause) for wave in range(number)]
    return [Span(begin, begin + seconds) for begin in begins for _ in range(places)]


def test_an_endpoint_whose_places_are_never_empty_is_used_in_full() -> None:
    requests = waves(50, 32, 2.0)
    window = busy(requests)
    assert replies(requests, window) / window.seconds == pytest.approx(16.0)


def test_a_pause_between_requests_is_missing_from_the_throughput() -> None:
    requests = waves(50, 32, 2.0, pause=0.5)
    window = busy(requests)
    assert replies(requests, window) / window.seconds == pytest.approx(16.0 * 2.0 / 2.5, rel=0.01)


def test_the_beginning_and_the_end_are_left_out() -> None:
    window = busy(waves(10, 10, 1.0))
    assert (window.begin, window.end) == (2.0, 9.0)


def test_a_value_between_two_samples_is_between_theirs() -> None:
    samples = [(0.0, 0.0), (1.0, 10.0), (2.0, 30.0)]
    assert at(samples, 1.5) == 20.0
    assert at(samples, 1.0) == 10.0
    assert at(samples, 9.0) == 30.0


def test_the_fields_are_those_that_later_versions_are_compared_by() -> None:
    assert fields(FOUND) == {
        "tasks": 200,
        "turns": 10,
        "slots": 32,
        "throughput_ratio": 0.975,
        "cpu_ms_per_turn": 12.0,
        "cpu_ratio": 2.4,
        "rss_mb": 150.0,
        "http_429": 0,
    }


def test_a_refused_request_and_an_idle_place_miss_a_target() -> None:
    assert all(target.met for target in targets(FOUND))
    worse = LoadFigures(200, 10, 32, 2.0, 14.0, 16.0, 5.0, 301.0, 1)
    assert not any(target.met for target in targets(worse))
