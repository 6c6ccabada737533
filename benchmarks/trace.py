"""What a measured operator notes, and what follows from it about each turn.

The operator keeps its notes in memory and writes them as JSON lines when it ends, so that writing
them down does not disturb what is measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.intervals import Interval, clip, median, union_length

PORTS = ("journal", "sandbox", "model")


@dataclass(frozen=True, slots=True)
class Span:
    """One awaited call of a port. Times in seconds of the operator's monotonic clock."""

    port: str
    op: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Stored:
    """A turn was stored. `cpu_s`: user and system time that the process has used until then."""

    task: str
    number: int
    at: float
    cpu_s: float


@dataclass(slots=True)
class Trace:
    """All notes of one process, in the order in which they were made."""

    spans: list[Span] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    peak_mib: float = 0.0
    """The most memory that the process has had resident."""

    @contextmanager
    def span(self, port: str, op: str) -> Iterator[None]:
        """Note how long the body takes, also if it fails or is cancelled."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.spans.append(Span(port, op, begin, time.perf_counter()))

    def turn_stored(self, task: str, number: int) -> None:
        """Note that a turn of the task (by its uid) is in the journal now."""
        self.stored.append(Stored(task, number, time.perf_counter(), time.process_time()))

    def save(self, path: Path) -> None:
        """Write all notes as JSON lines."""
        spans = (["span", s.port, s.op, s.begin, s.end] for s in self.spans)
        stored = (["stored", s.task, s.number, s.at, s.cpu_s] for s in self.stored)
        lines = (*spans, *stored, ["peak", self.peak_mib])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def load(path: Path) -> Trace:
    """Read what `Trace.save` wrote."""
    trace = Trace()
    for line in path.read_text().splitlines():
        kind, *values = json.loads(line)
        match kind:
            case "span":
                trace.spans.append(Span(*values))
            case "stored":
                trace.stored.append(Stored(*values))
            case "peak":
                (trace.peak_mib,) = values
            case _:
                raise ValueError(f"{path}: a note of unknown kind {kind!r}")
    return trace


@dataclass(frozen=True, slots=True)
class Turn:
    """The time from one stored turn to the next, in ms.

    `commit`, `tool` and `model` are the times in which a call of that port was awaited. They may
    overlap. `own` is the time in which none was; `cpu` is the operator's user and system time.
    """

    wall: float
    own: float
    commit: float
    tool: float
    model: float
    cpu: float


def turns(trace: Trace, task: str) -> list[Turn]:
    """The turns of a task (by its uid): one fewer than were stored."""
    stored = sorted((s for s in trace.stored if s.task == task), key=lambda s: s.number)
    spans = sorted(trace.spans, key=lambda s: s.begin)
    return [_turn(spans, before, after) for before, after in pairwise(stored)]


def _turn(spans: Sequence[Span], before: Stored, after: Stored) -> Turn:
    within = (before.at, after.at)
    near = [s for s in spans if s.begin < after.at and s.end > before.at]
    awaited: dict[str, list[Interval]] = {
        port: clip(((s.begin, s.end) for s in near if s.port == port), within) for port in PORTS
    }
    wall = after.at - before.at
    busy = union_length(interval for intervals in awaited.values() for interval in intervals)
    return Turn(
        wall=1000 * wall,
        own=1000 * (wall - busy),
        commit=1000 * union_length(awaited["journal"]),
        tool=1000 * union_length(awaited["sandbox"]),
        model=1000 * union_length(awaited["model"]),
        cpu=1000 * (after.cpu_s - before.cpu_s),
    )


def medians(trace: Trace, task: str) -> dict[str, float]:
    """Median ms of each kind of port call between the first and the last stored turn of a task."""
    times = [s.at for s in trace.stored if s.task == task]
    found: dict[str, list[float]] = {}
    for span in trace.spans:
        if min(times) <= span.begin and span.end <= max(times):
            found.setdefault(f"{span.port}.{span.op}", []).append(1000 * (span.end - span.begin))
    return {name: median(samples) for name, samples in sorted(found.items())}


def journal_calls(trace: Trace, task: str) -> int:
    """Calls of the journal that ended between the first and the last stored turn of a task."""
    times = [s.at for s in trace.stored if s.task == task]
    return sum(s.port == "journal" and min(times) < s.end <= max(times) for s in trace.spans)
