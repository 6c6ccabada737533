"""What the fake saw: one record a request, kept in memory for tests."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic_core import to_json


@dataclass(slots=True)
class Seen:
    """One chat request. Times are seconds since the epoch; `left` is None while it is in flight.

    `digest` is the SHA-256 of the body as compact JSON, in the order sent, without `rid` and
    `cache_salt`, so that two attempts at one request have the same. `outcome` is answered,
    refused, aborted, disconnected or failed (a fault of the script); None while in flight.
    """

    number: int
    rid: str
    key: str
    arrived: float
    messages: int = 0
    turn: int = 0
    conversation: str = ""
    cache_salt: str | None = None
    streams: bool = False
    digest: str = ""
    status: int | None = None
    finish_reason: str | None = None
    outcome: str | None = None
    problem: str | None = None
    left: float | None = None
    body: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def aborted(self) -> bool:
        """Whether the request ended without its answer: aborted, or its client left."""
        return self.outcome in ("aborted", "disconnected")

    def as_json(self) -> dict[str, Any]:
        """The record without the body."""
        return {**asdict(self), "body": None, "aborted": self.aborted}

    def line(self) -> str:
        """The record as a line of a log."""
        problem = f" problem={self.problem}" if self.problem else ""
        return (
            f"request {self.number} rid={self.rid} conversation={self.conversation} "
            f"turn={self.turn} status={self.status} outcome={self.outcome}{problem}"
        )


class SeenLog:
    """The records of the newest requests, in order of arrival. Numbers go on after `clear`."""

    def __init__(self, size: int = 20_000) -> None:
        self.records: list[Seen] = []
        self._size = size
        self._count = 0

    def begin(self, key: str) -> Seen:
        """A record of a request that came now."""
        self._count += 1
        seen = Seen(number=self._count, rid="", key=key, arrived=time.time())
        self.records.append(seen)
        if len(self.records) > self._size:
            del self.records[: self._size // 20]
        return seen

    def clear(self) -> None:
        """Forget them."""
        self.records.clear()


def digest_of(body: dict[str, Any]) -> str:
    """See `Seen.digest`."""
    kept = {name: value for name, value in body.items() if name not in ("rid", "cache_salt")}
    try:
        data = to_json(kept)  # a third of the time of json.dumps, which is most of a request's
    except (ValueError, UnicodeError):  # lone surrogates
        text = json.dumps(kept, separators=(",", ":"), ensure_ascii=False)
        data = text.encode("utf-8", "surrogatepass")
    return "sha256:" + hashlib.sha256(data).hexdigest()


class PrefixCache:
    """An estimate of the prefix cache: the longest common start of two bodies of one conversation.

    Bytes, four to a token; the last body of the 256 most recent conversations is kept. SGLang's
    cache works on tokens and across conversations; the salt separates in both (recorded).
    """

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._last: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()

    def cached(self, conversation: tuple[str, str, str], raw: bytes) -> int:
        """Tokens of `raw` that the conversation's last body began with; remembers `raw`."""
        before = self._last.pop(conversation, b"")
        self._last[conversation] = raw
        while len(self._last) > self._size:
            self._last.popitem(last=False)
        return _common_prefix(before, raw) // 4

    def clear(self) -> None:
        self._last.clear()


def _common_prefix(a: bytes, b: bytes) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
