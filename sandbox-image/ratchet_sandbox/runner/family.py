"""Finding and killing everything that the model's shell has started.

Killing the shell's process group is not enough: a command may start a session of its own, or
detach twice and leave no parent. Four signs are used together: same session or group, descent,
a marker in the environment, and, where the runner adopts orphans, being its child.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

KILL_PATIENCE_S: Final = 5.0
_NAMES: Final = 8
"""Names of processes that a sentence lists at most."""
_ROUND_S: Final = 0.005
_EMPTY_LOOKS: Final = 10
"""Looks in a row that must find nothing. One proves nothing: a process that forks and exits within
a millisecond has another pid by the time that the list of pids has been gone through."""

Marked = Callable[[int], bool]
"""Whether a process carries the shell's mark."""
Started = tuple[int, int]
"""A pid and the moment of its start (`Row.started`): pids are used again."""


@dataclass(frozen=True, slots=True)
class Row:
    """One process as /proc shows it (proc(5), /proc/PID/stat)."""

    parent: int
    group: int
    session: int
    state: str
    marked: bool = False
    started: int = 0
    """In clock ticks since the system's start."""
    name: str = ""


def table(marked: Marked = lambda _: False) -> dict[int, Row]:
    """All processes that can be seen, zombies left out.

    The newest are read first, and their mark at once: they may be gone a moment later.
    """
    rows = {}
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True):
        if (row := _row(pid, marked)) and row.state not in "ZX":
            rows[pid] = row
    return rows


def descendants(rows: Mapping[int, Row], roots: Iterable[int]) -> set[int]:
    """The roots and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid, row in rows.items():
        children.setdefault(row.parent, []).append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def members(
    rows: Mapping[int, Row],
    sessions: Iterable[int],
    *,
    parent: int,
    helpers: Iterable[int],
    adopts_orphans: bool,
) -> set[int]:
    """The pids that belong to the shells that led these sessions.

    `parent` is the runner's own pid, `helpers` the children it uses itself.
    """
    led = set(sessions)
    roots = {pid for pid, row in rows.items() if row.session in led or row.group in led}
    own = descendants(rows, helpers) | {parent}
    if adopts_orphans:
        roots |= {pid for pid, row in rows.items() if row.parent == parent}
    roots |= {pid for pid, row in rows.items() if row.marked}
    return (descendants(rows, roots - own) & rows.keys()) - own


def children(pid: int) -> frozenset[Started]:
    """The direct children of a process that itself starts none meanwhile (a shell that waits).

    proc(5), /proc/PID/task/TID/children: exact unless a child ends while it is read. Without that
    file (CONFIG_PROC_CHILDREN) all processes are looked through.
    """
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            pids = [int(word) for word in file.read().split()]
    except OSError:
        return frozenset(
            (child, row.started) for child, row in table().items() if row.parent == pid
        )
    rows = ((child, _row(child, lambda _: False)) for child in pids)
    return frozenset((child, row.started) for child, row in rows if row)


def of_command(rows: Mapping[int, Row], shell: int, earlier: frozenset[Started]) -> set[int]:
    """What descends from a shell, but for the shell and for those children and what they started."""
    begun = (
        pid for pid, row in rows.items()
        if row.parent == shell and (pid, row.started) not in earlier
    )  # fmt: skip
    return descendants(rows, begun)


def names(rows: Mapping[int, Row], pids: Iterable[int]) -> str:
    """Names of these processes for a sentence, the most frequent first: ``sleep (3), make``."""
    counted = Counter(rows[pid].name for pid in pids if pid in rows).most_common()
    shown = [name if count == 1 else f"{name} ({count})" for name, count in counted[:_NAMES]]
    return ", ".join(shown) + (", ..." if len(counted) > _NAMES else "")


def marked_with(marker: bytes) -> Marked:
    """Whether a process was started with this ``NAME=value`` in its environment."""

    def marked(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return marker in file.read().split(b"\0")
        except OSError:
            return False  # gone, or another user's

    return marked


async def kill(find: Callable[[], set[int]]) -> set[int]:
    """Kill what `find` finds until it finds nothing. Returns what was left after 5 s.

    Each round first stops all of them, so that a process that keeps forking cannot outrun it.
    """
    deadline = time.monotonic() + KILL_PATIENCE_S
    empty = 0
    while empty < _EMPTY_LOOKS:
        pids = find()
        if not pids:
            empty += 1
            continue
        empty = 0
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        if time.monotonic() > deadline:
            return pids
        await asyncio.sleep(_ROUND_S)
    return set()


def _row(pid: int, marked: Marked) -> Row | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    carries = marked(pid)  # before anything else: it may be gone a moment later
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    end = text.rindex(b")")
    state, parent, group, session, *rest = text[end + 2 :].split()
    name = text[text.index(b"(") + 1 : end].decode(errors="replace")
    return Row(int(parent), int(group), int(session), state.decode(), carries, int(rest[15]), name)
