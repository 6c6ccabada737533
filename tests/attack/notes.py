"""What became of each case of one run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Verdict(StrEnum):
    """How a case ended."""

    HELD = "held"
    """The outcome was the one that it asserts."""
    FAILED = "failed"
    """It was not, or could not be learned."""
    LEFT_OUT = "left out"
    """It means nothing under this runtime, or in this cluster; `why` says what is missing."""


@dataclass(frozen=True, slots=True)
class Note:
    """One case of one run. `category` is the name of its module without `test_`."""

    category: str
    name: str
    verdict: Verdict
    seconds: float
    why: str = ""


def write(path: Path, notes: Iterable[Note]) -> None:
    """Leave the notes of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(note) for note in notes], indent=1) + "\n")


def read(path: Path) -> list[Note]:
    """The notes that `write` left. Raises OSError and ValueError."""
    return [
        Note(**{**raw, "verdict": Verdict(raw["verdict"])}) for raw in json.loads(path.read_text())
    ]
