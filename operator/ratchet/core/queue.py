"""The order in which tickets get a place. Deterministic: time comes in as an argument.

The rule:

1. Tickets of running tasks come first, and with them those that have waited for 5 minutes; then the
   others. A task that runs has its prompt in the engine's cache and holds a sandbox.
2. Within both: higher priority first, then the task that began earlier, then by uid.
3. Each tenth place goes to the task that began earliest of those that have waited for 5 minutes,
   whatever its priority. So nobody starves, however many of higher priority keep coming; and where
   all have one priority it is the one that was next anyway, so that running tasks still finish
   before others begin.

Unlike the rest of the core this changes in place: thousands may wait, and a copy of them at each
admission would cost more than the request. Each operation takes O(log n) on average.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ratchet.core.facts import Ticket

AGED_S: Final = 300.0
"""A wait that is worth as much as being a running task's."""
OLDEST_EVERY: Final = 10

_Rank = tuple[int, int, datetime, str, int]
_Age = tuple[datetime, str, int]


@dataclass(slots=True)
class _Waiting:
    ticket: Ticket
    since: float
    first_class: bool
    aged: bool = False


class Queue:
    """Tickets that wait, by a key of the caller's. `now` must never go back."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        # The heaps may hold entries of keys that left, or that have a better one by now.
        self._ranked: list[_Rank] = []
        self._aged: list[_Age] = []
        self._impatient: list[tuple[float, int]] = []
        self._young: deque[int] = deque()
        """Keys that have not waited for 5 minutes yet, the one that came first in front."""
        self._taken = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: int) -> bool:
        return key in self._waiting

    def ticket(self, key: int) -> Ticket:
        """The ticket of a key. Raises KeyError."""
        return self._waiting[key].ticket

    def add(self, key: int, ticket: Ticket, now: float) -> None:
        """Let a ticket wait."""
        waiting = _Waiting(ticket, now, first_class=ticket.running)
        self._waiting[key] = waiting
        heapq.heappush(self._ranked, _rank(key, waiting))
        self._young.append(key)
        if ticket.patience_s is not None:
            heapq.heappush(self._impatient, (ticket.patience_s, key))

    def drop(self, key: int) -> None:
        """Let a ticket leave that got no place."""
        del self._waiting[key]
        if max(len(self._ranked), len(self._impatient)) > 2 * len(self._waiting) + 64:
            self._sweep()

    def take(self, key: int) -> None:
        """Let a ticket leave that got a place."""
        self.drop(key)
        self._taken += 1

    def drop_impatient(self, wait_s: float) -> tuple[int, ...]:
        """Let those leave that do not wait for so long, the least patient first. Returns their keys."""
        left: list[int] = []
        while self._impatient and self._impatient[0][0] < wait_s:
            key = heapq.heappop(self._impatient)[1]
            if key in self._waiting:
                self.drop(key)
                left.append(key)
        return tuple(left)

    def head(self, now: float) -> int | None:
        """Whose turn it is; None if nobody waits."""
        self._age(now)
        if (self._taken + 1) % OLDEST_EVERY == 0:
            oldest = self._oldest()
            if oldest is not None:
                return oldest
        return self._first()

    def order(self, now: float) -> list[int]:
        """All keys by rules 1 and 2: what place each one has. O(n log n)."""
        self._age(now)
        ranks = sorted(_rank(key, waiting) for key, waiting in self._waiting.items())
        return [rank[-1] for rank in ranks]

    def _age(self, now: float) -> None:
        """Promote those that have waited for 5 minutes."""
        while self._young:
            key = self._young[0]
            waiting = self._waiting.get(key)
            if waiting is not None and now - waiting.since < AGED_S:
                return
            self._young.popleft()
            if waiting is None:
                continue
            waiting.aged = True
            ticket = waiting.ticket
            heapq.heappush(self._aged, (ticket.created, ticket.task.uid, key))
            if not waiting.first_class:
                waiting.first_class = True
                heapq.heappush(self._ranked, _rank(key, waiting))

    def _first(self) -> int | None:
        while self._ranked:
            # Of a key that was promoted, the better entry is on top first.
            key = self._ranked[0][-1]
            if key in self._waiting:
                return key
            heapq.heappop(self._ranked)
        return None

    def _oldest(self) -> int | None:
        while self._aged:
            key = self._aged[0][-1]
            if key in self._waiting:
                return key
            heapq.heappop(self._aged)
        return None

    def _sweep(self) -> None:
        """Forget what the heaps hold of those that left: seldom, and then all at once."""
        self._ranked = [_rank(key, waiting) for key, waiting in self._waiting.items()]
        self._aged = [entry for entry in self._aged if entry[-1] in self._waiting]
        self._young = deque(key for key in self._young if key in self._waiting)
        self._impatient = [entry for entry in self._impatient if entry[-1] in self._waiting]
        heapq.heapify(self._ranked)
        heapq.heapify(self._aged)
        heapq.heapify(self._impatient)


def _rank(key: int, waiting: _Waiting) -> _Rank:
    ticket = waiting.ticket
    return 0 if waiting.first_class else 1, -ticket.priority, ticket.created, ticket.task.uid, key
