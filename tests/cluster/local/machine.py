"""The local cluster as a whole: up, down and status of one checkout's slot."""

import http.client
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from json import dumps
from pathlib import Path

from tests.cluster import description, folders
from tests.cluster.commands import find, run, say, step, succeeds, wait_until
from tests.cluster.description import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.local import (
    binaries,
    certificates,
    cgroups,
    cleanup,
    controlplane,
    images,
    network,
    node,
    packages,
    processes,
    record,
    slots,
)
from tests.cluster.local.record import Record
from tests.cluster.local.slots import Slot

CONTEXT = "ratchet-local"
FIRST = ("etcd", "containerd", "kube-apiserver")
"""Started before the API server answers; the others need it."""


def _registry() -> Path:
    return folders.state() / "slots.json"


@contextmanager
def _held(slot: Slot) -> Iterator[None]:
    with folders.locked(folders.state() / f"{slot.name}.lock", f"{slot.name} is being changed"):
        yield


def _allocate() -> Slot:
    with folders.locked(folders.state() / "slots.lock", "choosing a place for the cluster"):
        cleanup.end_abandoned(_registry())
        taken = slots.read(_registry())
        slot = slots.choose(taken, str(folders.CHECKOUT), network.routes())
        slots.save(_registry(), {**taken, slot.number: str(folders.CHECKOUT)})
    return slot


def _own() -> Slot | None:
    """The slot of this checkout, if it has one."""
    for number, owner in slots.read(_registry()).items():
        if owner == str(folders.CHECKOUT):
            return Slot(number)
    return None


def up() -> Cluster:
    """Start the cluster, or leave it alone if it is up; a broken one is made anew."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a cluster without Docker needs root: run as root, start Docker, "
            "or name a cluster by RATCHET_CONTEXT and REGISTRY"
        )
    if (cluster := _running()) is not None:
        say(f"the cluster is up already ({cluster.apiserver})")
        return cluster
    packages.ensure(packages.NODE)
    programs = binaries.ensure()
    slot = _allocate()
    with _held(slot):
        return _start(slot, programs)


def _running() -> Cluster | None:
    """The description of this checkout's cluster if all of it works."""
    slot = _own()
    known = record.read(slot) if slot is not None else None
    if slot is None or known is None or broken_parts(known) or known.settings != _settings(slot):
        return None
    return _describe(slot, known) if _ready(slot) else None


def broken_parts(known: Record) -> tuple[str, ...]:
    """Parts that should run and do not."""
    if not processes.alive(known.init):
        return ("node",)
    expected = (*FIRST, *_later())
    return tuple(
        name
        for name in expected
        if name not in known.parts or not processes.alive(known.parts[name])
    )


def _later() -> tuple[str, ...]:
    return ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")


def _start(slot: Slot, programs: Path) -> Cluster:
    with step(f"start the local cluster ({slot.name}, {slot.network})"):
        if leftovers := cleanup.leftovers(slot):
            say(f"  cleaning up what an earlier run left: {', '.join(leftovers)}")
            cleanup.end(slot)
        _write_files(slot)
        known = _start_node(slot, programs)
        for name in FIRST:
            known = _start_part(slot, known, name)
        wait_until("the API server to be ready", lambda: _ready(slot), 90.0)
        for name in _later():
            known = _start_part(slot, known, name)
        _equip(slot, known, programs)
        cluster = _describe(slot, known)
        description.write(cluster)
    return cluster


def _facts() -> node.Facts:
    status = Path("/proc/self/status").read_text()
    folder, runc = packages.plugin_folder(), find("runc")
    if folder is None or runc is None:
        raise ClusterError("runc and the network plugins are missing: run `make cluster-up` again")
    return node.Facts(str(folder), runc, node.may_lower_oom_score(status))


def _configuration(slot: Slot) -> dict[str, str]:
    """Content of every file of configuration, by name."""
    return {
        "containerd.toml": node.containerd(_facts()),
        "cni/10-ratchet.conflist": node.cni(slot),
        "kubelet.json": node.kubelet(slot),
        "kube-proxy-config.json": node.kube_proxy(slot),
        "Corefile": node.corefile(slot),
        "manifests.json": node.manifests(slot),
        "resolv.conf": f"nameserver {slot.dns_ip}\n",
    }


def _commands(slot: Slot) -> dict[str, list[str]]:
    return {
        "etcd": controlplane.etcd(),
        "kube-apiserver": controlplane.apiserver(slot),
        "kube-controller-manager": controlplane.controller_manager(),
        "kube-scheduler": controlplane.scheduler(),
        **node.commands(slot),
    }


def _settings(slot: Slot) -> str:
    files = sorted(_configuration(slot).items())
    return folders.digest(str(files), str(sorted(_commands(slot).items())), *binaries.inputs())


def _write_files(slot: Slot) -> None:
    state = record.folder(slot)
    for name in ("etcd", "logs", "pki"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "etcd").chmod(0o700)
    for name, content in _configuration(slot).items():
        folders.write_text(state / name, content)
    addresses = [str(slot.node_ip), str(slot.apiserver_service_ip), "127.0.0.1"]
    certificates.create(state / "pki", slot.name, addresses)
    owners = {
        "controller-manager.json": "controller-manager",
        "scheduler.json": "scheduler",
        "kubelet-kubeconfig.json": "kubelet",
        "kube-proxy.json": "kube-proxy",
        "coredns.json": "coredns",
        "admin.json": "admin",
    }
    for name, person in owners.items():
        context = CONTEXT if person == "admin" else "ratchet"
        text = controlplane.kubeconfig(slot, state / "pki", person, context)
        folders.write_text(state / name, text, mode=0o600)


def _start_node(slot: Slot, programs: Path) -> Record:
    """Start the first process in new namespaces and join it to this machine's network."""
    state = record.folder(slot)
    spec = {
        "name": slot.name,
        "state": str(state),
        "binaries": str(programs),
        "doors": cgroups.create(slot.name),
    }
    folders.write_text(state / "spec.json", dumps(spec, indent=2) + "\n")
    with (state / "logs" / "node.log").open("ab") as log:
        outer = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
            + ["--mount-proc", sys.executable, "-I", "-S"]
            + [str(Path(__file__).with_name(cleanup.INIT)), str(state / "spec.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
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
    known = Record(init, str(programs), _settings(slot))
    record.save(slot, known)
    network.connect(slot, init.pid)
    return known


def enter(known: Record) -> list[str]:
    """Beginning of a command line that runs inside the node."""
    return ["nsenter", "-t", str(known.init.pid), "-m", "-n", "-p", "-u", "-i", "--"]


def _start_part(slot: Slot, known: Record, name: str) -> Record:
    """Start one part inside the node; it becomes a child of the node's first process."""
    log = f"{controlplane.STATE}/logs/{name}.log"
    detach = 'cd / && setsid "$@" >>"$0" 2>&1 </dev/null & echo $!'
    argv = _commands(slot)[name]
    path = f"{controlplane.BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    clean = ["env", "-i", f"PATH={path}", "HOME=/root", "sh", "-c", detach, log, *argv]
    inner = int(run([*enter(known), *clean]).strip())
    pid = processes.members(processes.namespace(known.init.pid) or "").get(inner)
    identity = processes.identify(pid) if pid is not None else None
    if identity is None:
        raise ClusterError(f"{name} ended at once: see {record.folder(slot)}/logs/{name}.log")
    known = replace(known, parts={**known.parts, name: identity})
    record.save(slot, known)
    return known


def _ready(slot: Slot) -> bool:
    """Whether the API server says that it is ready."""
    pki = record.folder(slot) / "pki"
    try:
        trust = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        trust.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        url = f"{controlplane.server(slot)}/readyz"
        with urllib.request.urlopen(url, timeout=5, context=trust) as answer:
            return bool(answer.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return False


def kubectl(slot: Slot, programs: str | Path, *words: str, timeout: float = 60.0) -> str:
    """Run kubectl as the cluster's administrator."""
    config = record.folder(slot) / "admin.json"
    return run([Path(programs) / "kubectl", "--kubeconfig", config, *words], timeout=timeout)


def _equip(slot: Slot, known: Record, programs: Path) -> None:
    """Bring in what pods need: the pause image, DNS, a ready node and the default account."""
    images.load_pause(enter(known), record.folder(slot), programs / "pause")
    kubectl(slot, programs, "apply", "-f", str(record.folder(slot) / "manifests.json"))
    ready = ["wait", "--for=condition=Ready", f"node/{slot.name}", "--timeout=60s"]
    wait_until(
        f"node {slot.name} to register",
        lambda: bool(kubectl(slot, programs, "get", "nodes", "-o", "name")),
        60.0,
    )
    kubectl(slot, programs, *ready, timeout=70.0)
    account = ["-n", "default", "get", "serviceaccount", "default", "--ignore-not-found"]
    wait_until(
        "the default service account", lambda: bool(kubectl(slot, programs, *account)), 60.0
    )


def _describe(slot: Slot, known: Record) -> Cluster:
    target = folders.BUILD / "kubeconfig"
    folders.write_text(target, (record.folder(slot) / "admin.json").read_text(), mode=0o600)
    return Cluster(
        provider="local",
        context=CONTEXT,
        kubeconfig=str(target),
        registry="",
        path=known.binaries,
        apiserver=controlplane.server(slot),
        host_ip=str(slot.host_ip),
        pids={name: part.pid for name, part in known.parts.items()},
    )


def down() -> None:
    """End this checkout's cluster and those of checkouts that no longer exist."""
    with folders.locked(folders.state() / "slots.lock", "giving the cluster's place back"):
        cleanup.end_abandoned(_registry())
        slot = _own()
    if slot is not None:
        with step(f"end the local cluster ({slot.name})"), _held(slot):
            cleanup.end(slot)
        with folders.locked(folders.state() / "slots.lock", "giving the cluster's place back"):
            taken = slots.read(_registry())
            taken.pop(slot.number, None)
            slots.save(_registry(), taken)
    description.forget()


def parts_and_health() -> tuple[Mapping[str, str], bool]:
    """State of each part in words, and whether the cluster works."""
    slot = _own()
    known = record.read(slot) if slot is not None else None
    if slot is None or known is None:
        return {}, False
    broken = broken_parts(known)
    rows = {}
    for name in (*FIRST, *_later()):
        part = known.parts.get(name)
        rows[name] = f"{part.pid if part else '-'}\t{'ended' if name in broken else 'running'}"
    healthy = not broken and _ready(slot)
    return rows, healthy


def node_is_ready(path: str, kubeconfig: str) -> bool:
    """Whether the cluster's node takes pods."""
    argv = [Path(path) / "kubectl", "--kubeconfig", kubeconfig, "wait", "--for=condition=Ready"]
    return succeeds([*argv, "nodes", "--all", "--timeout=5s"])
