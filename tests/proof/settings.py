"""What the levels with real processes need: a cluster, folders, and how much to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cluster import Cluster, current

LANES = 3
"""Namespaces with an operator each that are worked in at the same time."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run of a level."""

    cluster: Cluster
    logs: Path
    """Folder for what operators, sandboxes and ledger print."""
    seed: int = 1
    kills: int = 300
    """Processes to kill in all. Each row is run in any case; what is left is done at random."""
    turns: int = 1000
    """Undisturbed turns."""
    lanes: int = LANES
    only: str = ""
    """Rows whose name contains this; empty for all."""

    @classmethod
    def of_checkout(
        cls, logs: Path, *, seed: int = 1, kills: int = 300, turns: int = 1000
    ) -> Settings:
        """On the cluster of this checkout. Raises ClusterError if there is none."""
        return cls(current(), logs, seed=seed, kills=kills, turns=turns)
