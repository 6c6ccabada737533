"""What was found of many tasks at one endpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """`throughput`: replies a second while all places were wanted; `ideal`: places / latency.

    CPU is user and system time in ms: of the operator a turn, and of a bare process that makes the
    same HTTP calls.
    """

    tasks: int
    turns: int
    slots: int
    latency_s: float
    throughput: float
    cpu_ms: float
    floor_cpu_ms: float
    peak_mib: float
    refused: int
    """Answers 429 and 503 of the server."""

    @property
    def ideal(self) -> float:
        return self.slots / self.latency_s

    @property
    def ratio(self) -> float:
        """The part of the endpoint's places that was used."""
        return self.throughput / self.ideal

    @property
    def cpu_ratio(self) -> float:
        return self.cpu_ms / self.floor_cpu_ms
