"""Whether the kernel killed processes of this container for want of memory, as its cgroup tells.

cgroup v2: `oom_kill` in memory.events (Documentation/admin-guide/cgroup-v2.rst). v1: `oom_kill` in
memory.oom_control (cgroup-v1/memory.rst, since Linux 4.13). Not every runtime shows these files.
"""

from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")
_COUNTS: Final = ("memory.events", "memory/memory.oom_control")
_LIMITS: Final = ("memory.max", "memory/memory.limit_in_bytes")
_NO_LIMIT: Final = 1 << 60
_KILLED: Final = 137
"""What a shell says of a command that SIGKILL ended."""


def kills(cgroup: Path = CGROUP) -> int | None:
    """Processes of the container killed so far for want of memory; None if that cannot be seen."""
    for name in _COUNTS:
        for line in _read(cgroup / name).splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill" and count.strip().isdigit():
                return int(count)
    return None


def limit(cgroup: Path = CGROUP) -> int | None:
    """Bytes of memory that the container may have; None if there is no limit or none to be seen."""
    for name in _LIMITS:
        text = _read(cgroup / name).strip()
        if text.isdigit() and int(text) < _NO_LIMIT:
            return int(text)
    return None


def note(before: int | None, code: int | None, cgroup: Path = CGROUP) -> tuple[str, ...]:
    """What to tell about memory after a command with this exit code; `before`: kills at its start."""
    now = kills(cgroup)
    if now is not None and before is not None and now > before:
        bound = limit(cgroup)
        of = f" of {bound / 2**20:.0f} MiB" if bound else ""
        count = now - before
        killed = "1 process was" if count == 1 else f"{count} processes were"
        return (f"[out of memory: the sandbox reached its limit{of}, and {killed} killed]",)
    if code != _KILLED:
        return ()
    if now is None or before is None:
        return ("[killed by SIGKILL; whether for want of memory cannot be seen here]",)
    return ("[killed by SIGKILL; not for want of memory: the sandbox did not reach its limit]",)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
