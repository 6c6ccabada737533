"""The first process of a container, as this machine sees it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from tests.cluster import ClusterError
from tests.cluster.local import processes


def kill(pod: Mapping[str, Any], container: str) -> None:
    """SIGKILL to PID 1 of a container; the kernel ends all others in it. Raises ClusterError."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    found = [status.get("containerID") for status in statuses if status["name"] == container]
    # As the kubelet writes it: containerd://<64 hex digits>.
    identity = str(found[0] or "").rpartition("/")[2] if found else ""
    pid = _first_process(identity) if identity else None
    if pid is None:
        raise ClusterError(f"container {container} of pod {pod['metadata']['name']} does not run")
    os.kill(pid, signal.SIGKILL)


def _first_process(identity: str) -> int | None:
    """Of the container with this id: its control group bears it, and inside it is number 1."""
    for pid in processes.pids():
        if identity in _control_groups(pid) and processes.inner_pid(pid) == 1:
            return pid
    return None


def _control_groups(pid: int) -> str:
    try:
        return (processes.PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return ""  # it has ended meanwhile
