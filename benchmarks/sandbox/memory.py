"""Resident memory of a sandbox's server and runner, as this machine's kernel counts it.

The containers of a local cluster are processes of this machine; elsewhere they cannot be seen.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.bare import NotMeasured
from benchmarks.sandbox.figures import Memory
from tests.e2e.box import Box, shown

PACKAGE = "ratchet_sandbox."
OUTPUT = 1_000_000_000
"""Bytes of output that are written, one line without an end."""
HARD_S = 300


async def measure(box: Box) -> Memory:
    """Before and after 1 GB of output."""
    at_rest = await resident(box)
    command = f"head -c {OUTPUT} /dev/zero | tr '\\0' x"
    receipt = await box.bash(command, timeout=HARD_S)
    if receipt.outcome != "Ok":
        raise NotMeasured(f"1 GB of output in sandbox {box.pod}: {shown(receipt)}")
    return Memory(at_rest, await resident(box))


async def resident(box: Box) -> float:
    """MiB of server and runner together. Raises NotMeasured."""
    pod = await box.object()
    ids = [
        status["containerID"].rpartition("/")[2] for status in pod["status"]["containerStatuses"]
    ]
    found = _processes(ids)
    if len(found) != len(ids):
        raise NotMeasured(
            f"server and runner of {box.pod} are {len(found)} processes of this machine, not "
            f"{len(ids)}: memory can be measured on a local cluster only"
        )
    return sum(found)


def _processes(ids: list[str]) -> list[float]:
    """MiB of each process of ours in containers of these ids."""
    folders = (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [_rss(folder) for folder in folders if _is_ours(folder, ids)]


def _is_ours(folder: Path, ids: list[str]) -> bool:
    try:
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        groups = (folder / "cgroup").read_text()
    except OSError:  # it has ended
        return False
    return any(word.startswith(PACKAGE) for word in words) and any(id in groups for id in ids)


def _rss(folder: Path) -> float:
    for line in (folder / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise NotMeasured(f"{folder}/status has no VmRSS")
