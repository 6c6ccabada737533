"""The local cluster as a whole: up, down, load and status of one checkout's slot."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import description, folders, networks
from tests.cluster.commands import run, say, step, wait_until
from tests.cluster.description import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.local import (
    binaries,
    cleanup,
    controlplane,
    health,
    images,
    launch,
    layout,
    packages,
    processes,
    record,
    slots,
)
from tests.cluster.local.network import routes
from tests.cluster.local.record import Record
from tests.cluster.local.slots import Slot
from tests.cluster.networks import Network

GRACE_S = 30.0
"""How long a part may take to end: what a kubelet gives to a static pod."""


def _registry() -> Path:
    return folders.state() / "slots.json"


@contextmanager
def _held(slot: Slot) -> Iterator[None]:
    with folders.locked(folders.state() / f"{slot.name}.lock", f"{slot.name} is being changed"):
        yield


def _allocate() -> Slot:
    Path(folders.owner()).mkdir(parents=True, exist_ok=True)
    with folders.locked(folders.state() / "slots.lock", "choosing a place for the cluster"):
        cleanup.end_abandoned(_registry())
        taken = slots.read(_registry())
        slot = slots.choose(taken, folders.owner(), routes())
        slots.save(_registry(), {**taken, slot.number: folders.owner()})
    return slot


def _own() -> Slot | None:
    """The slot of this checkout, if it has one."""
    for number, owner in slots.read(_registry()).items():
        if owner == folders.owner():
            return Slot(number)
    return None


def up() -> Cluster:
    """Start the cluster, or leave it alone if it is up.

    Parts that ended are started again; a cluster that cannot be repaired is made anew, empty.
    """
    if os.geteuid() != 0:
        raise ClusterError(
            "a cluster without Docker needs root: run as root, start Docker, "
            "or name a cluster by RATCHET_CONTEXT and REGISTRY"
        )
    network = _network()
    packages.ensure(packages.NODE)
    if network is Network.CILIUM:
        packages.ensure(packages.CILIUM)
    if (cluster := _running(network)) is not None:
        say("the cluster is up already")
        description.write(cluster)
        return cluster
    if (cluster := _repaired(network)) is not None:
        return cluster
    programs = {module.name: binaries.ensure(module) for module in layout.modules(network)}
    while True:
        slot = _allocate()
        with _held(slot):
            if _own() != slot:
                continue  # a `down` of this checkout held the lock, and has let go of the place
            # Another `up` of this checkout may have held the lock and done the work.
            return _running(network) or _start(slot, programs, network)


def _network() -> Network:
    """The network that is asked for; where none is, that of the running cluster, else the plain."""
    if (asked := networks.asked(os.environ)) is not None:
        return asked
    slot = _own()
    known = record.read(slot) if slot is not None else None
    runs = known is not None and processes.alive(known.init)
    return known.network if known is not None and runs else Network.PLAIN


def _running(network: Network) -> Cluster | None:
    """The description of this checkout's cluster if all of it works."""
    slot = _own()
    known = record.read(slot) if slot is not None else None
    if slot is None or known is None or health.broken_parts(known):
        return None
    works = known.settings == layout.settings(slot, network) and health.apiserver_is_ready(slot)
    return _describe(slot, known) if works else None


def _repaired(network: Network) -> Cluster | None:
    """The cluster after its ended parts were started again; None if it must be made anew."""
    slot = _own()
    known = record.read(slot) if slot is not None else None
    if slot is None or known is None or not processes.alive(known.init):
        return None
    broken = health.broken_parts(known)
    if not broken or known.settings != layout.settings(slot, network):
        return None
    try:
        with _held(slot), step(f"start again: {', '.join(broken)}"):
            known = record.read(slot) or known
            cluster = _describe(slot, launch.repair(slot, known))
    except ClusterError as error:
        say(f"{error}\nmaking the cluster anew")
        return None
    description.write(cluster)
    return cluster


def _start(slot: Slot, programs: Mapping[str, Path], network: Network) -> Cluster:
    with step(f"start the local cluster ({slot.name}, {slot.network})"):
        if leftovers := cleanup.leftovers(slot):
            say(f"  cleaning up what an earlier run left: {', '.join(leftovers)}")
            cleanup.end(slot)
        known = launch.everything(slot, programs, network)
        cluster = _describe(slot, known)
        description.write(cluster)
    return cluster


def _describe(slot: Slot, known: Record) -> Cluster:
    target = folders.build() / "kubeconfig"
    folders.write_text(target, (record.folder(slot) / "admin.json").read_text(), mode=0o600)
    return Cluster(
        provider="local",
        context=layout.CONTEXT,
        kubeconfig=str(target),
        registry="",
        path=known.binaries,
        apiserver=controlplane.server(slot),
        host_ip=str(slot.host_ip),
        network=known.network.value,
        pids={name: part.pid for name, part in known.parts.items()},
    )


def down() -> None:
    """End this checkout's cluster and those of checkouts that no longer exist."""
    with folders.locked(folders.state() / "slots.lock", "giving the cluster's place back"):
        cleanup.end_abandoned(_registry())
        slot = _own()
    if slot is None:
        description.forget()
        return
    with step(f"end the local cluster ({slot.name})"), _held(slot):
        cleanup.end(slot)
        # An `up` of this checkout that waits for the lock must find the place given back.
        with folders.locked(folders.state() / "slots.lock", "giving the cluster's place back"):
            taken = slots.read(_registry())
            taken.pop(slot.number, None)
            slots.save(_registry(), taken)
        description.forget()


def down_if_root() -> None:
    """`down`, where there can be a local cluster at all."""
    if os.geteuid() == 0:
        down()


def load(tar: Path) -> None:
    """Import a docker-archive into this checkout's cluster."""
    slot, known = _alive()
    with _held(slot):
        images.load(launch.enter(known), record.folder(slot), tar)


def stop_part(name: str, how: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to one part; unless it is SIGSTOP, wait until the part has ended.

    After GRACE_S it is killed: an API server with open watches takes a minute to end by itself.
    Nothing starts it again but `start_part` and `up`.
    """
    _, known = _alive()
    part = known.parts.get(name)
    if part is None or not processes.alive(part):
        raise ClusterError(f"{name} does not run: start it again with `start {name}`")
    os.kill(part.pid, how)
    if how is signal.SIGSTOP:
        return
    try:
        wait_until(f"{name} to end", lambda: not processes.alive(part), GRACE_S)
    except ClusterError:
        processes.kill(part)


def start_part(name: str, more: Sequence[str] = ()) -> None:
    """Start one part that was stopped; `more` are flags that it has until its next start.

    A part that SIGSTOP holds goes on.
    """
    slot, known = _alive()
    part = known.parts.get(name)
    if part is not None and processes.alive(part):
        os.kill(part.pid, signal.SIGCONT)
        return
    with _held(slot):
        known = launch.start_part(slot, known, name, more)
        description.write(_describe(slot, known))


def kill_container(identity: str) -> None:
    """SIGKILL to the first process of a container, whatever runtime it has; all others go with it.

    `identity` is the container's, as a pod's status has it: `containerd://ID`.
    """
    _, known = _alive()
    kill = ["tasks", "kill", "--signal", "SIGKILL", identity.rpartition("/")[2]]
    run([*images.ctr(launch.enter(known)), *kill])


def _alive() -> tuple[Slot, Record]:
    slot = _own()
    known = record.read(slot) if slot is not None else None
    if slot is None or known is None or not processes.alive(known.init):
        raise ClusterError("this checkout has no cluster: run `make cluster-up`")
    return slot, known


@dataclass(frozen=True, slots=True)
class Row:
    """One part of the cluster, for people."""

    process: str
    state: str
    megabytes: int


def parts_and_health() -> tuple[Mapping[str, Row], bool]:
    """Each part of this checkout's cluster, and whether the whole works."""
    slot = _own()
    known = record.read(slot) if slot is not None else None
    if slot is None or known is None:
        return {}, False
    broken = health.broken_parts(known)
    answers = not broken and health.apiserver_is_ready(slot)
    healthy = answers and health.node_is_ready(_describe(slot, known))
    names = layout.parts(known.network)
    return {name: _row(known, name, name in broken) for name in names}, healthy


def _row(known: Record, name: str, ended: bool) -> Row:
    part = known.parts.get(name)
    if part is None or ended or not processes.alive(known.init):
        return Row("-", "ended", 0)
    return Row(str(part.pid), "running", processes.resident_megabytes(part.pid))
