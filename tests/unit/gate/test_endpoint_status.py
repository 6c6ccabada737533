"""The status of a ModelEndpoint: what is written, when its times change, when nothing is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ratchet.api.endpoint import ModelEndpoint
from ratchet.core.admission import Hold
from ratchet.core.conditions import EndpointReason
from ratchet.core.facts import Answered
from ratchet.core.replies import Usage
from ratchet.edges import endpointstatus as es
from ratchet.edges.probing import NEVER_ASKED, Verdict

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 13, tzinfo=UTC)
GOOD = Verdict(True, EndpointReason.SERVING, "Good.")
BAD = Verdict(False, EndpointReason.UNREACHABLE, "Bad.")
CALM = es.saturated(None)


def seen(ready: Verdict = GOOD, **more: Any) -> es.Seen:
    return es.Seen(3, ready, CALM, 0, 0, **more)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {
        each["type"]: (each["status"], each["reason"], each["lastTransitionTime"])
        for each in status["conditions"]
    }


def test_what_is_written_is_a_status_of_the_api() -> None:
    recent = (Answered(2.0, Usage(100, 40, 5)),)
    full = seen(recent=recent, error=es.LastError("x" * 5000, NOON))
    written = es.after({}, es.status({}, full, NOON))
    endpoint = ModelEndpoint.model_validate(
        {
            "metadata": {"name": "large", "namespace": "models", "uid": "uid-00001"},
            "spec": {"url": "http://models/v1", "model": "large"},
            "status": written,
        }
    )
    read = endpoint.status.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert read.keys() == written.keys()
    assert written["latency"] == {"p50Seconds": 2.0, "p95Seconds": 2.0}
    assert (written["cacheHitPercent"], len(written["lastError"]["message"])) == (40, 1024)


def test_a_conditions_time_is_that_of_its_last_change_of_status() -> None:
    before = es.after({}, es.status({}, seen(GOOD), NOON))
    other = Verdict(True, EndpointReason.SERVING, "Better.")
    assert conditions(es.status(before, seen(other), LATER))["Ready"][2] == "2026-03-01T12:00:00Z"
    changed = es.status(before, seen(BAD), LATER)
    assert conditions(changed)["Ready"] == ("False", "Unreachable", "2026-03-01T13:00:00Z")
    assert conditions(changed)["Saturated"][2] == "2026-03-01T12:00:00Z"


def test_nothing_is_to_be_written_while_nothing_changes() -> None:
    now = seen(recent=tuple(Answered(2 + n / 10_000, Usage(100, 50, 5)) for n in range(100)))
    before = es.after({}, es.status({}, now, NOON))
    assert not es.differs(before, es.status(before, now, LATER))
    moved = seen(recent=(*now.recent[1:], Answered(2.009, Usage(100, 50, 5))))
    assert not es.differs(before, es.status(before, moved, LATER)), "figures are rounded"
    assert es.differs(before, es.status(before, seen(BAD), LATER))


def test_an_endpoint_that_was_never_asked_is_unknown() -> None:
    written = es.status({}, seen(NEVER_ASKED), NOON)
    assert conditions(written)["Ready"][:2] == ("Unknown", "NotAsked")
    assert written["latency"] is None and written["cacheHitPercent"] is None


def test_the_last_error_outlives_a_change_of_the_operators_process() -> None:
    before = es.after({}, es.status({}, seen(error=es.LastError("Bad.", NOON)), NOON))
    assert es.status(before, seen(), LATER)["lastError"] == before["lastError"]


def test_saturated_says_what_requests_wait_for() -> None:
    hold = Hold(EndpointReason.PLACES_TAKEN, "all 8 places are taken")
    assert es.saturated(hold) == Verdict(
        True, EndpointReason.PLACES_TAKEN, "Requests wait: all 8 places are taken."
    )
    assert CALM.ready is False


@pytest.mark.parametrize(
    ("count", "p50", "p95"), [(1, 1.0, 1.0), (2, 1.0, 2.0), (20, 10.0, 19.0), (100, 50.0, 95.0)]
)
def test_latencies_are_those_that_so_many_do_not_exceed(count: int, p50: float, p95: float) -> None:
    recent = tuple(Answered(float(n), Usage(1, 0, 1)) for n in range(count, 0, -1))
    latency = es.status({}, seen(recent=recent), NOON)["latency"]
    assert latency == {"p50Seconds": p50, "p95Seconds": p95}
