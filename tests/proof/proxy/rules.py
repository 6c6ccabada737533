"""What the proxy does to which request or watch event, and the answers that it makes up. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Object = dict[str, Any]


class Act(StrEnum):
    """What is done to a request. The name says whether the API server gets it."""

    ANSWER_LOST = "answer lost after the commit"
    GATEWAY_TIMEOUT = "504 after the commit"
    TWICE = "delivered twice, the second answer given"
    DELAY = "delayed"
    CONFLICT = "409 instead"
    INVALID = "422 instead"
    BUSY = "429 with Retry-After instead"
    ERROR = "500 instead"
    UNAVAILABLE = "503 instead"
    RESET = "reset before the commit"
    HANG = "hangs, never arrives"


REFUSALS = (Act.CONFLICT, Act.INVALID, Act.BUSY, Act.ERROR, Act.UNAVAILABLE)
"""Those that are answered by the proxy alone."""


class WatchAct(StrEnum):
    """What is done to a watch at one of its events."""

    DROP = "event dropped"
    TWICE = "event delivered twice"
    LATE = "event late, others first"
    EXPIRED = "cut with ERROR 410"
    ERROR = "cut with ERROR 500"
    CLOSE = "closed"
    SILENT = "silent, connection open"


@dataclass(slots=True)
class Rule:
    """An act for some requests: of those that match, from the `nth` on, `times` many (0: all).

    `method` is a regular expression for the whole method; `path` for any part of the path with its
    query, `body` for any part of the body.
    """

    act: Act
    method: str = ".*"
    path: str = ""
    body: str = ""
    nth: int = 1
    times: int = 1
    seconds: float = 1.0
    """How long it hangs or is delayed, and the seconds of Retry-After."""
    seen: int = 0
    struck: int = 0

    def takes(self, method: str, path: str, body: str) -> bool:
        """Count this request; whether it is one to act on."""
        if not (
            re.fullmatch(self.method, method)
            and re.search(self.path, path)
            and re.search(self.body, body)
        ):
            return False
        self.seen += 1
        mine = self.seen >= self.nth and (not self.times or self.seen < self.nth + self.times)
        self.struck += mine
        return mine


@dataclass(slots=True)
class WatchRule:
    """An act for some events of watches whose path matches; counted over all such watches."""

    act: WatchAct
    path: str = ""
    event: str = ""
    """Regular expression for any part of the event as JSON text."""
    nth: int = 1
    times: int = 1
    seconds: float = 1.0
    """How late an event comes."""
    seen: int = 0
    struck: int = 0

    def takes(self, path: str, event: str) -> bool:
        """Count this event; whether it is one to act on."""
        if not (re.search(self.path, path) and re.search(self.event, event)):
            return False
        self.seen += 1
        mine = self.seen >= self.nth and (not self.times or self.seen < self.nth + self.times)
        self.struck += mine
        return mine


@dataclass(frozen=True, slots=True)
class MadeUp:
    """An answer that the API server knows nothing of."""

    status: int
    body: bytes
    headers: dict[str, str]


def refusal(act: Act, seconds: float = 1.0) -> MadeUp:
    """What an API server says that refuses, in its own words."""
    match act:
        case Act.CONFLICT:
            text = "Operation cannot be fulfilled: the object has been modified; please apply your"
            return _status(409, "Conflict", f"{text} changes to the latest version and try again")
        case Act.INVALID:
            text = "the server rejected our request due to an error in our request"
            return _status(422, "Invalid", text)
        case Act.BUSY:
            text = "too many requests, please try again later"
            return _status(429, "TooManyRequests", text, {"Retry-After": f"{seconds:.0f}"})
        case Act.ERROR:
            return _status(500, "InternalError", "etcdserver: leader changed")
        case Act.UNAVAILABLE:
            return _status(503, "ServiceUnavailable", "apiserver is shutting down")
        case Act.GATEWAY_TIMEOUT:
            text = "Timeout: request did not complete within the allotted timeout"
            return _status(504, "Timeout", text)
        case _:
            raise ValueError(f"{act} is no answer")


def unauthorized() -> MadeUp:
    """What is said to a token that does not hold (any more)."""
    return _status(401, "Unauthorized", "Unauthorized")


def error_event(act: WatchAct) -> bytes:
    """The line by which an API server ends a watch in its stream."""
    if act is WatchAct.EXPIRED:
        status = _failure(410, "Expired", "too old resource version: 1 (2)")
    else:
        status = _failure(500, "InternalError", "etcdserver: leader changed")
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def resource_of(path: str) -> str:
    """The resource, and the subresource, that a path is about; for counting."""
    parts = path.partition("?")[0].strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join(rest[:1] + rest[2:]) or path


def _status(code: int, reason: str, text: str, headers: dict[str, str] | None = None) -> MadeUp:
    body = json.dumps(_failure(code, reason, text)).encode()
    return MadeUp(code, body, {"Content-Type": "application/json", **(headers or {})})


def _failure(code: int, reason: str, text: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": text,
        "reason": reason,
        "code": code,
    }
