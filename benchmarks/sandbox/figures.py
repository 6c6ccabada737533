"""What the sandbox's benchmark found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.intervals import median


@dataclass(frozen=True, slots=True)
class Start:
    """One round of starts, in ms from a pod's creation; for ours to the first result of a tool."""

    ours: float
    same_shape: float
    plain: float


@dataclass(frozen=True, slots=True)
class Round:
    """One round of calls, in ms."""

    noop: float
    bash: float
    commits: float
    """Two SQLite commits with fsync: what a call's reservation and its end cost at least."""
    https: float
    bare_bash: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of server and runner together, in MiB."""

    at_rest: float
    after_output: float


@dataclass(frozen=True, slots=True)
class SandboxFigures:
    """All of it."""

    starts: Sequence[Start]
    rounds: Sequence[Round]
    memory: Memory

    @property
    def first_result(self) -> float:
        return median([start.ours for start in self.starts])

    @property
    def same_shape(self) -> float:
        return median([start.same_shape for start in self.starts])

    @property
    def plain(self) -> float:
        return median([start.plain for start in self.starts])

    @property
    def noop(self) -> float:
        return median([r.noop for r in self.rounds])

    @property
    def noop_floor(self) -> float:
        return median([r.commits + r.https for r in self.rounds])

    @property
    def bash(self) -> float:
        return median([r.bash for r in self.rounds])

    @property
    def bash_floor(self) -> float:
        return median([r.noop + r.bare_bash for r in self.rounds])
