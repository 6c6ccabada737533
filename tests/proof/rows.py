"""What a level of the proof found: rows of a table, and their total. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from itertools import chain
from math import ceil
from operator import add
from typing import Any


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in one run, or in many. All but `unknown_reported` should be 0."""

    repeated: int = 0
    """Effects that happened again without a recorded permission."""
    lost: int = 0
    """Calls recorded as done whose effect never happened, and effects that no record speaks of."""
    stuck: int = 0
    """Tasks that did not end in time after the last fault."""
    holes: int = 0
    """Records that are missing, do not follow, or were refused by a strict model as a history."""
    unknown_reported: int = 0
    """Outcomes that nobody can know, recorded as unknown."""
    unknown_silent: int = 0
    """Calls recorded as not run whose effect happened all the same."""
    uncounted: int = 0
    """Requests that the model saw and that are neither recorded nor counted as lost."""
    remarks: tuple[str, ...] = ()
    """A sentence for each fault, with task and call."""

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self))
        )

    @property
    def broken(self) -> bool:
        """Whether a promise was broken."""
        faults = (self.repeated, self.lost, self.stuck, self.holes, self.unknown_silent)
        return any(faults) or self.uncounted > 0


@dataclass(frozen=True, slots=True)
class Row:
    """One point or fault of one level."""

    level: str
    """`L0`, `L1`, `L2`, `L3`, or `none` where nothing was disturbed."""
    fault: str
    runs: int
    """Seeds, cases, kills, faults or undisturbed tasks, as the level counts."""
    findings: Findings = field(default_factory=Findings)
    resume_s: tuple[float, ...] = ()
    """Seconds from each fault until a record was written by whoever went on."""
    kills: int = 0
    """Processes killed or stopped by signal in these runs."""
    turns: int = 0
    """Turns recorded in these runs."""


def to_json(row: Row) -> dict[str, Any]:
    """A row with its percentiles, as it is stored."""
    return {
        "level": row.level,
        "fault": row.fault,
        "runs": row.runs,
        "kills": row.kills,
        "turns": row.turns,
        **asdict(row.findings),
        "resume_p50_s": rounded(percentile(row.resume_s, 0.5)),
        "resume_p99_s": rounded(percentile(row.resume_s, 0.99)),
        "resume_s": [rounded(value) for value in row.resume_s],
    }


def from_json(stored: Mapping[str, Any]) -> Row:
    """A stored row."""
    findings = {each.name: stored[each.name] for each in fields(Findings)}
    findings["remarks"] = tuple(findings["remarks"])
    return Row(
        stored["level"],
        stored["fault"],
        stored["runs"],
        Findings(**findings),
        tuple(stored["resume_s"]),
        stored["kills"],
        stored["turns"],
    )


def total(rows: Iterable[Row]) -> Findings:
    """All findings together."""
    return reduce(add, (row.findings for row in rows), Findings())


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value below which `share` of the values are (nearest rank); None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def rounded(value: float | None) -> float | None:
    """To hundredths."""
    return None if value is None else round(value, 2)


def resumes(rows: Iterable[Row]) -> Iterator[float]:
    """All times to resume."""
    return chain.from_iterable(row.resume_s for row in rows)
