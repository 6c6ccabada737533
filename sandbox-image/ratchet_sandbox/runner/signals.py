"""Signals to a running command: to its shell, and to what that has started for it."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from typing import Final

from ratchet_sandbox.runner import family
from ratchet_sandbox.runner.command import Running

_PATIENCE_S: Final = 1.0
_LOOK_S: Final = 0.05


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone, or another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def to_command(running: Running, number: signal.Signals) -> dict[int, int]:
    """Send a signal to a command, background jobs of earlier ones left out.

    Returns the pids, but for the shell's, with the moments of their start.
    """
    rows = family.table()
    pids = family.of_command(rows, running.shell, running.earlier)
    running.signal = number.name
    send(running.shell, number)  # first, or it would go on with the next line of its script
    for pid in pids:
        send(pid, number)
    for pid in pids:
        send(pid, signal.SIGCONT)  # what is stopped takes no other signal
    return {pid: rows[pid].started for pid in pids}


def pause(running: Running) -> str:
    """Stop a command's processes, or let them go on. Which of both; empty if there are none."""
    rows = family.table()
    pids = family.of_command(rows, running.shell, running.earlier)
    stopped = any(rows[pid].state in "Tt" for pid in pids)
    for pid in pids:
        send(pid, signal.SIGCONT if stopped else signal.SIGSTOP)
    return ("continued" if stopped else "stopped") if pids else ""


async def sweep(started: Mapping[int, int]) -> int:
    """Kill what is left of these processes after a second. Returns how many those were."""
    deadline = time.monotonic() + _PATIENCE_S
    while (pids := _left(started)) and time.monotonic() < deadline:  # noqa: ASYNC110  other processes set no event
        await asyncio.sleep(_LOOK_S)
    for pid in pids:
        send(pid, signal.SIGKILL)
    return len(pids)


def _left(started: Mapping[int, int]) -> set[int]:
    rows = family.table()
    return {pid for pid, moment in started.items() if pid in rows and rows[pid].started == moment}
