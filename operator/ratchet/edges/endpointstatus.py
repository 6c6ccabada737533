"""The status of a ModelEndpoint as the operator writes it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ratchet.core.admission import Hold
from ratchet.core.conditions import EndpointCondition, EndpointReason
from ratchet.core.facts import Answered
from ratchet.edges.probing import Verdict
from ratchet.edges.wire import rfc3339

MOST_MESSAGE = 1024
"""Characters of a message that the CRD takes."""

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LastError:
    """The newest failed request."""

    message: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of an endpoint at a moment."""

    generation: int
    ready: Verdict
    saturated: Verdict
    running: int
    queued: int
    recent: tuple[Answered, ...] = ()
    """The last answered requests."""
    error: LastError | None = None


def status(before: Object, seen: Seen, now: datetime) -> dict[str, Any]:
    """The whole status; conditions that do not change keep their times. None is a field to remove."""
    return {
        "observedGeneration": seen.generation,
        "conditions": [
            _condition(before, kind, verdict, seen.generation, now)
            for kind, verdict in (
                (EndpointCondition.READY, seen.ready),
                (EndpointCondition.SATURATED, seen.saturated),
            )
        ],
        "running": seen.running,
        "queued": seen.queued,
        "latency": _latency(seen.recent),
        "cacheHitPercent": _cache_hits(seen.recent),
        "lastError": _error(before, seen.error),
    }


def differs(before: Object, wanted: Mapping[str, Any]) -> bool:
    """Whether a status must be written to be as it is wanted."""
    return any(before.get(name) != value for name, value in wanted.items())


def after(before: Object, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The status once it is written."""
    merged = {**before, **wanted}
    return {name: value for name, value in merged.items() if value is not None}


def _condition(
    before: Object, kind: EndpointCondition, verdict: Verdict, generation: int, now: datetime
) -> dict[str, Any]:
    value = {True: "True", False: "False", None: "Unknown"}[verdict.ready]
    conditions = before.get("conditions") or ()
    old: Object = next((c for c in conditions if c.get("type") == kind), {})
    same = old.get("status") == value
    return {
        "type": str(kind),
        "status": value,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if same else rfc3339(now),
        "reason": str(verdict.reason),
        "message": verdict.message[:MOST_MESSAGE],
    }


def _latency(recent: Iterable[Answered]) -> dict[str, float] | None:
    seconds = sorted(answer.latency_s for answer in recent)
    if not seconds:
        return None
    return {"p50Seconds": _at(seconds, 50), "p95Seconds": _at(seconds, 95)}


def _at(ordered: list[float], percent: int) -> float:
    """The smallest value that `percent` of them do not exceed, in two significant digits: small
    changes are not worth a write."""
    index = -(-len(ordered) * percent // 100) - 1
    return min(float(f"{ordered[index]:.2g}"), 86_400.0)


def _cache_hits(recent: Iterable[Answered]) -> int | None:
    """None where no reply said anything of a cache: not every server tells."""
    usages = [answer.usage for answer in recent]
    prompt, cached = sum(u.prompt for u in usages), sum(u.cached for u in usages)
    return min(round(100 * cached / prompt), 100) if prompt and cached else None


def _error(before: Object, error: LastError | None) -> dict[str, Any] | None:
    if error is None:
        return before.get("lastError")
    return {"message": error.message[:MOST_MESSAGE], "time": rfc3339(error.time)}


def saturated(hold: Hold | None) -> Verdict:
    """Whether requests wait, and why."""
    if hold is None:
        return Verdict(False, EndpointReason.PLACES_FREE, "A request would be sent at once.")
    return Verdict(True, hold.reason, f"Requests wait: {hold.why}.")
