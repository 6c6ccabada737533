"""Starting a node and its parts."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path

from tests.cluster import folders
from tests.cluster.commands import run, succeeds, wait_until
from tests.cluster.errors import ClusterError
from tests.cluster.local import (
    binaries,
    cgroups,
    cilium,
    cleanup,
    controlplane,
    dns,
    health,
    images,
    layout,
    processes,
    record,
)
from tests.cluster.local.network import connect
from tests.cluster.local.record import Record
from tests.cluster.local.slots import Slot
from tests.cluster.networks import Network

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = "--net --mount --pid --uts --ipc --fork --kill-child --mount-proc"


def everything(slot: Slot, programs: Mapping[str, Path], network: Network) -> Record:
    """Start a clean slot and wait until it takes pods.

    `programs` are the folders of the modules' programs, by the name of the module.
    """
    layout.write_files(slot, network)
    known = _start_node(slot, programs, network)
    for name in layout.FIRST:
        known = start_part(slot, known, name)
    wait_until("the API server to be ready", lambda: health.apiserver_is_ready(slot), 90.0)
    if network is Network.CILIUM:
        _make_way(slot, known, programs[binaries.CILIUM.name] / "crds")
    for name in layout.later(network):
        known = start_part(slot, known, name)
    _equip(slot, known)
    _check(slot, known)
    return known


def repair(slot: Slot, known: Record) -> Record:
    """Start the parts that ended in a node that still runs; what the cluster holds is kept."""
    for name in layout.FIRST:
        known = _revive(slot, known, name)
    wait_until("the API server to be ready", lambda: health.apiserver_is_ready(slot), 60.0)
    for name in layout.later(known.network):
        known = _revive(slot, known, name)
    _equip(slot, known)
    _check(slot, known)
    return known


def _revive(slot: Slot, known: Record, name: str) -> Record:
    return start_part(slot, known, name) if name in health.broken_parts(known) else known


def _start_node(slot: Slot, programs: Mapping[str, Path], network: Network) -> Record:
    """Start the first process in new namespaces and join it to this machine's network."""
    state = record.folder(slot)
    spec = {
        "name": slot.name,
        "state": str(state),
        "programs": {name: str(folder) for name, folder in programs.items()},
        "doors": cgroups.create(slot.name),
    }
    folders.write_text(state / "spec.json", dumps(spec, indent=2) + "\n")
    with (state / "logs" / "node.log").open("ab") as log:
        program = [sys.executable, "-I", "-S", str(Path(__file__).with_name(cleanup.INIT))]
        outer = subprocess.Popen(
            ["unshare", *NAMESPACES.split(), *program, str(state / "spec.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={"PATH": SYSTEM_PATH},
        )

    def ready() -> bool:
        if outer.poll() is not None:
            tail = (state / "logs" / "node.log").read_text()[-2000:]
            raise ClusterError(f"the node's first process ended:\n{tail}")
        return (state / "ready").exists()

    wait_until("the node's first process", ready, 20.0)
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    init = processes.identify(int(children[0]))
    if init is None:
        raise ClusterError(f"the node's first process ended: see {state}/logs/node.log")
    built, settings = str(programs[binaries.CLUSTER.name]), layout.settings(slot, network)
    known = Record(init, built, settings, network=network)
    record.save(slot, known)
    connect(slot, init.pid)
    return known


def enter(known: Record) -> list[str]:
    """Beginning of a command line that runs inside the node."""
    return ["nsenter", "-t", str(known.init.pid), "-m", "-n", "-p", "-u", "-i", "--"]


def start_part(slot: Slot, known: Record, name: str, more: Sequence[str] = ()) -> Record:
    """Start one part inside the node; it becomes a child of the node's first process."""
    log = f"{controlplane.STATE}/logs/{name}.log"
    detach = 'cd / && setsid "$@" >>"$0" 2>&1 </dev/null & echo $!'
    argv = [*layout.commands(slot, known.network)[name], *more]
    path = f"{controlplane.BIN}:{SYSTEM_PATH}"
    clean = ["env", "-i", f"PATH={path}", "HOME=/root", "sh", "-c", detach, log, *argv]
    inner = int(run([*enter(known), *clean]).strip())
    pid = processes.members(processes.namespace(known.init.pid) or "").get(inner)
    identity = processes.identify(pid) if pid is not None else None
    if identity is None:
        raise ClusterError(f"{name} ended at once: see {record.folder(slot)}/logs/{name}.log")
    known = replace(known, parts={**known.parts, name: identity})
    record.save(slot, known)
    return known


def kubectl(slot: Slot, programs: str | Path, *words: str, timeout: float = 60.0) -> str:
    """Run kubectl as the cluster's administrator."""
    config = record.folder(slot) / "admin.json"
    return run([Path(programs) / "kubectl", "--kubeconfig", config, *words], timeout=timeout)


def _make_way(slot: Slot, known: Record, crds: Path) -> None:
    """Bring in what Cilium's agent waits for: its kinds, and this node as an object of one."""
    run([*enter(known), "ip", *cilium.own_address(slot)])
    files = [word for crd in cilium.CRDS for word in ("-f", f"{crds}/{crd}.yaml")]
    # By the server: what a client would note down of them is more than an annotation holds.
    kubectl(slot, known.binaries, "apply", "--server-side", *files)
    wait = ["wait", "--for=condition=Established", "--timeout=60s", *files]
    kubectl(slot, known.binaries, *wait, timeout=70.0)
    state = record.folder(slot)
    node = f"--kubeconfig {state}/admin.json apply -f {state}/{cilium.OBJECTS}".split()
    argv = [f"{known.binaries}/kubectl", *node]
    wait_until("the API server to serve Cilium's kinds", lambda: succeeds(argv), 30.0)


def _equip(slot: Slot, known: Record) -> None:
    """Bring in what pods need: the pause image, DNS, a ready node and the default account."""
    programs = Path(known.binaries)
    images.load_pause(enter(known), record.folder(slot), programs / "pause")
    if known.network is Network.CILIUM:
        folder, binary = record.folder(slot), programs / "coredns"
        images.load_program(enter(known), folder, dns.IMAGE, binary)
    kubectl(slot, programs, "apply", "-f", str(record.folder(slot) / "manifests.json"))
    ready = ["wait", "--for=condition=Ready", f"node/{slot.name}", "--timeout=60s"]
    wait_until(
        f"node {slot.name} to register",
        lambda: bool(kubectl(slot, programs, "get", "nodes", "-o", "name")),
        60.0,
    )
    kubectl(slot, programs, *ready, timeout=70.0)
    account = ["-n", "default", "get", "serviceaccount", "default", "--ignore-not-found"]
    wait_until("the default service account", lambda: bool(kubectl(slot, programs, *account)), 60.0)


def _check(slot: Slot, known: Record) -> None:
    """All parts still run, names are answered, and policies enforced if they are to be."""
    if known.network is Network.CILIUM:
        argv = [*enter(known), *cilium.STATUS]
        wait_until("Cilium to enforce policies", lambda: succeeds(argv), 90.0)
    wait_until("coredns to answer", lambda: health.answers_names(slot), 60.0)
    if broken := health.broken_parts(known):
        logs = record.folder(slot) / "logs"
        raise ClusterError(f"{', '.join(broken)} ended: see {logs}/{broken[0]}.log")
