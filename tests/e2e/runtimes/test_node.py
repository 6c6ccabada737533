"""A local cluster of its own with pods under gVisor: started again, repaired, and gone without a trace."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, current, folders
from tests.cluster.local import cgroups, node, processes, record, slots
from tests.cluster.local.processes import Identity
from tests.e2e.kubectl import Kubectl
from tests.e2e.runtimes.conftest import GVISOR

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
NAME = "runtimes"
FOLDER = folders.CHECKOUT / "build" / f"cluster-{NAME}"


@pytest.fixture
async def own(cluster: Cluster) -> AsyncIterator[Kubectl]:
    if cluster.provider != "local":
        pytest.skip("parts of a cluster are stopped, which only a local one of our own allows")
    try:
        await _cluster("up")
        started = current(FOLDER)
        yield Kubectl(started.kubeconfig, started.path, "default")
    finally:
        await _cluster("down")


async def test_pods_live_on_when_containerd_is_started_again_and_nothing_of_them_stays(
    own: Kubectl,
) -> None:
    before = await _run_pod(own, "first")
    parts = current(FOLDER).pids
    await _cluster("up")
    assert current(FOLDER).pids == parts, "a cluster that is up is left alone"

    await _cluster("stop", "containerd")
    await _cluster("up")
    changed = {name for name, pid in current(FOLDER).pids.items() if parts[name] != pid}
    assert changed == {"containerd"}
    assert all(processes.alive(identity) for identity in before)
    after = await _run_pod(own, "second")

    slot = _slot()
    await _cluster("down")
    assert not any(processes.alive(identity) for identity in (*before, *after))
    assert not cgroups.remains(slot.name)
    assert not record.folder(slot).exists()
    assert slot.name not in _mounts()


async def _cluster(*words: str) -> None:
    """A command of tests.cluster for this cluster. Raises AssertionError if it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.cluster",
        *words,
        cwd=folders.CHECKOUT,
        env={**os.environ, folders.NAME: NAME},
    )
    assert await process.wait() == 0, f"tests.cluster {' '.join(words)}"


async def _run_pod(kubectl: Kubectl, name: str) -> tuple[Identity, ...]:
    """Start a pod under gVisor; the processes that it is made of, on this machine."""
    container = {"name": "only", "image": node.PAUSE, "imagePullPolicy": "Never"}
    spec: dict[str, Any] = {
        "runtimeClassName": GVISOR.runtime_class,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    await kubectl.apply(pod)
    await kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s")
    uid = (await kubectl.get("pod", name))["metadata"]["uid"]
    found = tuple(filter(None, map(processes.identify, _in_group(uid))))
    assert found
    return found


def _mounts() -> str:
    return Path("/proc/self/mounts").read_text()


def _in_group(uid: str) -> list[int]:
    """Processes in the control groups of a pod."""
    return [pid for pid in processes.pids() if uid in _control_groups(pid)]


def _control_groups(pid: int) -> str:
    try:
        return (processes.PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return ""  # it has ended meanwhile


def _slot() -> slots.Slot:
    taken = slots.read(folders.state() / "slots.json")
    return next(slots.Slot(number) for number, owner in taken.items() if owner == str(FOLDER))
