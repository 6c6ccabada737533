"""What is wrong with a ModelEndpoint by itself, in sentences. Pure.

The API server refuses all of it by the CEL rules of the CRD. An object that was stored before they
were there is not looked at again until somebody changes it; this says the same of such a one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from ratchet.api.base import Rule
from ratchet.api.endpoint import (
    BACKOFF_FIRST_S,
    BACKOFF_MOST_S,
    RESERVED_HEADERS,
    TOTAL_S,
    Backoff,
    Header,
    ModelEndpointSpec,
    Retry,
    Timeouts,
)
from ratchet.api.precedence import first_or


def endpoint_problems(spec: ModelEndpointSpec) -> tuple[str, ...]:
    """Why requests cannot be made as the spec says, each with what to do; empty where they can."""
    return tuple(f"{where}: {rule.message}." for rule, where, holds in _CHECKS if not holds(spec))


def _url(spec: ModelEndpointSpec) -> bool:
    try:
        parts = urlsplit(spec.url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an address, or a port above 65535
        return False


def _names(spec: ModelEndpointSpec) -> list[str]:
    return [header.name.lower() for header in spec.headers or ()]


def _once(spec: ModelEndpointSpec) -> bool:
    return len(set(_names(spec))) == len(_names(spec))


def _ours(spec: ModelEndpointSpec) -> bool:
    return not set(_names(spec)).intersection(RESERVED_HEADERS)


def _first_byte(spec: ModelEndpointSpec) -> bool:
    given = spec.timeouts or Timeouts()
    return (given.first_byte_seconds or 0) <= first_or(TOTAL_S, given.total_seconds)


def _backoff(spec: ModelEndpointSpec) -> bool:
    given = (spec.retry or Retry()).backoff_seconds or Backoff()
    return first_or(BACKOFF_FIRST_S, given.first) <= first_or(BACKOFF_MOST_S, given.most)


_CHECKS: Final[tuple[tuple[Rule, str, Callable[[ModelEndpointSpec], bool]], ...]] = (
    (ModelEndpointSpec.URL, "spec.url", _url),
    (ModelEndpointSpec.NAMES_ONCE, "spec.headers", _once),
    (Header.NOT_OURS, "spec.headers", _ours),
    (Timeouts.IN_ORDER, "spec.timeouts.firstByteSeconds", _first_byte),
    (Backoff.IN_ORDER, "spec.retry.backoffSeconds.first", _backoff),
)
