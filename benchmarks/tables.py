"""Tables that read well as Markdown and on a terminal, and targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, and the most that it may be."""

    what: str
    found: float
    most: float

    @property
    def met(self) -> bool:
        return self.found <= self.most


def header(*cells: str) -> Iterator[str]:
    """The two lines above the rows."""
    yield row(*cells)
    yield row("---", *("---:" for _ in cells[1:]))


def row(first: str, *cells: str) -> str:
    """One line."""
    return f"| {first:<34} | " + " | ".join(f"{cell:>13}" for cell in cells) + " |"
