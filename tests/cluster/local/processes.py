"""Who a process is: its number alone is not enough, since numbers are used again."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.commands import wait_until

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process and no other: number, start time (clock ticks since boot), and boot."""

    pid: int
    started: int
    boot: str


def parse_started(stat: str) -> int:
    """Start time in clock ticks since boot, field 22 of /proc/PID/stat (proc(5)).

    The second field is the program's name in brackets and may itself hold blanks and brackets.
    """
    return int(stat.rpartition(")")[2].split()[19])


def boot_id() -> str:
    """Name of this boot of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    """Identity of a living process, or None."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if stat.rpartition(")")[2].split()[0] in "ZX":
        return None
    return Identity(pid, parse_started(stat), boot_id())


def alive(identity: Identity) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    return identify(identity.pid) == identity


def dump(identity: Identity) -> dict[str, object]:
    """For a JSON record."""
    return asdict(identity)


def load(record: object) -> Identity:
    """From a JSON record; raises ValueError, KeyError or TypeError if it is none."""
    if not isinstance(record, dict):
        raise ValueError(f"not an identity: {json.dumps(record)}")
    return Identity(int(record["pid"]), int(record["started"]), str(record["boot"]))


def pids() -> Iterator[int]:
    """Numbers of all processes."""
    return (int(entry) for entry in os.listdir(PROC) if entry.isdigit())


def namespace(pid: int) -> str | None:
    """Name of the process namespace that a process is in, or None if it is gone."""
    try:
        return os.readlink(PROC / str(pid) / "ns" / "pid")
    except OSError:
        return None


def members(name: str) -> dict[int, int]:
    """Processes in a process namespace: number inside it -> number on this machine."""
    found = {}
    for pid in pids():
        if namespace(pid) == name and (inner := inner_pid(pid)) is not None:
            found[inner] = pid
    return found


def inner_pid(pid: int) -> int | None:
    """Number of a process inside its own process namespace."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None


def arguments(pid: int) -> tuple[str, ...]:
    """Command line of a process; empty if it is gone or a kernel thread."""
    try:
        return tuple((PROC / str(pid) / "cmdline").read_text().split("\0")[:-1])
    except (OSError, UnicodeDecodeError):
        return ()


def resident_megabytes(pid: int) -> int:
    """Memory of a process that is in RAM (resident set size); 0 if it is gone."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def kill(identity: Identity, timeout: float = 20.0) -> None:
    """End exactly this process, if it still runs, and wait for it."""
    if not alive(identity):
        return
    try:
        os.kill(identity.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_until(f"process {identity.pid} to end", lambda: not alive(identity), timeout)
