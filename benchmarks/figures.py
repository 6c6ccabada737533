"""What a benchmark found."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.floor import Floor
from benchmarks.load.figures import LoadFigures
from benchmarks.sandbox.figures import SandboxFigures
from benchmarks.scripts import Run
from benchmarks.trace import Turn
from benchmarks.writes import Write


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What was found of one task."""

    run: Run
    turns: list[Turn]
    writes: dict[Write, float]
    """Accepted writes a turn, by resource and verb."""
    journal_calls: float
    """Writes a turn that the operator's journal was asked for, by the operator's own notes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one benchmark found: with a model that answers at once, with a slow one, and the floor."""

    fast: RunFigures
    slow: RunFigures
    floor: Floor
    peak_mib: float
    ops: dict[str, float]
    """Median of each kind of port call of the fast run, in ms."""
    sandbox: SandboxFigures
    load: LoadFigures
