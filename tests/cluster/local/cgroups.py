"""The control groups of a slot: one folder of the slot's name in every hierarchy."""

import os
from pathlib import Path

from tests.cluster.commands import wait_until
from tests.cluster.errors import ClusterError

ROOT = Path("/sys/fs/cgroup")


def parse_mounts(mounts: str, root: str = str(ROOT)) -> tuple[str, ...]:
    """Mount points of the hierarchies, from /proc/self/mounts: one for v2, several for v1."""
    rows = [line.split() for line in mounts.splitlines()]
    return tuple(
        row[1] for row in rows if row[2] in ("cgroup", "cgroup2") and row[1].startswith(root)
    )


def hierarchies() -> tuple[Path, ...]:
    """Every hierarchy of this machine."""
    found = parse_mounts(Path("/proc/self/mounts").read_text())
    if not found:
        raise ClusterError(f"no control groups are mounted below {ROOT}")
    return tuple(Path(mount) for mount in found)


def unified() -> bool:
    """Whether the machine has cgroup v2 alone."""
    return (ROOT / "cgroup.controllers").exists()


def create(name: str) -> tuple[str, ...]:
    """Make the slot's groups; returns the files that the node's first process enters."""
    doors = []
    for hierarchy in hierarchies():
        for folder in (hierarchy / name, hierarchy / name / "system"):
            folder.mkdir(exist_ok=True)
            _copy_cpuset(folder)
        doors.append(str(hierarchy / name / "system" / "cgroup.procs"))
    if unified():
        _delegate(ROOT)
        _delegate(ROOT / name)
    return tuple(doors)


def _copy_cpuset(folder: Path) -> None:
    """A new v1 cpuset is empty, and an empty one admits no process."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (folder / "cgroup.clone_children").exists() and (folder / file).exists():
            (folder / file).write_text((folder.parent / file).read_text())


def _delegate(folder: Path) -> None:
    """v2: let children have the controllers that the kubelet needs."""
    here = (folder / "cgroup.controllers").read_text().split()
    wanted = [name for name in ("cpuset", "cpu", "io", "memory", "pids", "hugetlb") if name in here]
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))


def remains(name: str) -> tuple[Path, ...]:
    """Groups of a slot that exist."""
    tops = (hierarchy / name for hierarchy in hierarchies())
    return tuple(top for top in tops if top.is_dir())


def remove(name: str) -> None:
    """Remove the slot's groups; their processes must have ended."""

    def gone() -> bool:
        for top in remains(name):
            _remove_tree(top)
        return not remains(name)

    wait_until(f"control groups {name} to become empty", gone, timeout=60.0)


def _remove_tree(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            # Busy: the kernel is still taking its last process away. The caller tries again.
            return
