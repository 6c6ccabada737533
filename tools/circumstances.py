"""What a measured figure means nothing without, and the page that it is written into."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Of what, where and when something was measured."""

    commit: str
    """The commit; `+` behind it if tracked files differed from it."""
    machine: str
    day: date
    load: float
    """Processes that wanted to run in the minute before (load average)."""

    @classmethod
    def now(cls) -> Circumstances:
        """Those of this checkout on this machine."""
        return cls(_commit(), _machine(), datetime.now(UTC).date(), os.getloadavg()[0])

    def __str__(self) -> str:
        return f"{self.day}, commit {self.commit}, {self.machine}, load {self.load:.1f} before."


def with_table(page: str, text: str, begin: str, end: str) -> str:
    """The page with this text between its two marks. Raises ValueError if it has no marks."""
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page needs the lines {begin!r} and {end!r} round its table")
    return f"{before}{begin}\n{text}\n{end}{after}"


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD")
    return f"{commit}+" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*words: str) -> str:
    done = subprocess.run(("git", *words), cwd=REPO, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system, python = platform.system(), f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, {system}, {python}"
