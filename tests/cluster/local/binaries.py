"""The programs of the cluster, built from Go modules into the user's cache.

Those that share much (client-go, gRPC, OpenTelemetry) stand in one module, `tests/cluster/binaries`,
so that it is compiled once. What wants other versions of the same, or is not always needed, has a
module of its own in a folder below. A folder of the cache is named by a digest of everything that
decides its content; files come into it whole, so an interrupted build goes on where it was.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import folders
from tests.cluster.commands import find, run, step
from tests.cluster.errors import ClusterError

MODULE = folders.CHECKOUT / "tests" / "cluster" / "binaries"

KUBERNETES = "k8s.io/kubernetes"
CONTAINERD = "github.com/containerd/containerd/v2"
HELM = "helm.sh/helm/v3"
GVISOR_MODULE = "gvisor.dev/gvisor"
CILIUM_MODULE = "github.com/cilium/cilium"


@dataclass(frozen=True, slots=True)
class Binary:
    """One program."""

    name: str
    package: str
    group: str
    """Programs of a group are built by one call of Go: linking then uses all processors."""
    output: str = ""
    """What Go calls it, where that is not its name."""


@dataclass(frozen=True, slots=True)
class Module:
    """Programs that are built with one go.mod, and kept in one folder of the cache."""

    name: str
    """The node sees the programs at /run/ratchet/NAME."""
    folder: Path
    binaries: tuple[Binary, ...]
    versions: Mapping[str, str]
    """Go variables, each with the required module whose version is written into it."""
    sources: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Folders that lie beside the programs, each with the required module that has it, and where."""


_BASE = "k8s.io/component-base/version"
_K8S, _CONTAINERD = f"{KUBERNETES}/cmd", f"{CONTAINERD}/cmd"
BINARIES = (
    Binary("etcd", "go.etcd.io/etcd/server/v3", "API server", output="server"),
    Binary("kube-apiserver", f"{_K8S}/kube-apiserver", "API server"),
    Binary("kube-controller-manager", f"{_K8S}/kube-controller-manager", "controllers"),
    Binary("kube-scheduler", f"{_K8S}/kube-scheduler", "controllers"),
    Binary("kubelet", f"{_K8S}/kubelet", "node"),
    Binary("kube-proxy", f"{_K8S}/kube-proxy", "node"),
    Binary("containerd", f"{_CONTAINERD}/containerd", "containerd"),
    Binary("containerd-shim-runc-v2", f"{_CONTAINERD}/containerd-shim-runc-v2", "containerd"),
    Binary("ctr", f"{_CONTAINERD}/ctr", "containerd"),
    Binary("kubectl", f"{_K8S}/kubectl", "tools"),
    Binary("helm", f"{HELM}/cmd/helm", "tools"),
    Binary("coredns", "./coredns", "coredns and pause"),
    Binary("pause", "./pause", "coredns and pause"),
)
CLUSTER = Module(
    "bin",
    MODULE,
    BINARIES,
    {
        f"{_BASE}.gitVersion": KUBERNETES,
        "k8s.io/client-go/pkg/version.gitVersion": KUBERNETES,
        f"{CONTAINERD}/version.Version": CONTAINERD,
        f"{HELM}/internal/version.version": HELM,
    },
)
GVISOR = Module(
    "gvisor",
    MODULE / "gvisor",
    (
        Binary("runsc", f"{GVISOR_MODULE}/runsc", "gVisor"),
        Binary("containerd-shim-runsc-v1", "./shim", "gVisor", output="shim"),
    ),
    {f"{GVISOR_MODULE}/runsc/version.version": GVISOR_MODULE},
)
CILIUM = Module(
    "cilium",
    MODULE / "cilium",
    (
        Binary("cilium-cni", f"{CILIUM_MODULE}/plugins/cilium-cni", "Cilium's tools"),
        Binary("cilium-dbg", f"{CILIUM_MODULE}/cilium-dbg", "Cilium's tools"),
        Binary("cilium-agent", f"{CILIUM_MODULE}/daemon", "Cilium's agent", output="daemon"),
    ),
    {f"{CILIUM_MODULE}/pkg/version.ciliumVersion": CILIUM_MODULE},
    {
        "bpf": (CILIUM_MODULE, "bpf"),
        "crds": (CILIUM_MODULE, "pkg/k8s/apis/cilium.io/client/crds"),
    },
)
TOOLS = frozenset({"kubectl", "helm"})
"""What a cluster that is not ours needs on this side."""
KEPT_DAYS = 30
KIND = "sigs.k8s.io/kind@v0.31.0"


def inputs(module: Module = CLUSTER) -> tuple[bytes, ...]:
    """Content of the files that decide what is built."""
    folder = module.folder
    files = [folder / "go.mod", folder / "go.sum", *sorted(folder.glob("*/*.go"))]
    return tuple(file.read_bytes() for file in files)


def version(module: str, listed: str) -> str:
    """Version of a module in the text of a go.mod.

    Raises `ClusterError` if the text does not require that module.
    """
    for line in listed.splitlines():
        match line.removeprefix("require").split():
            case [name, number, *_] if name == module and number.startswith("v"):
                return number
    raise ClusterError(f"go.mod does not require {module}")


def flags(listed: str, module: Module = CLUSTER) -> tuple[str, ...]:
    """Flags of every build: small, the same for every folder, and knowing its own version."""
    written: dict[str, str] = {}
    for name, of in module.versions.items():
        written |= _numbers(name, version(of, listed))
    words = " ".join(f"-X {name}={value}" for name, value in written.items())
    return ("-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {words}")


def _numbers(name: str, number: str) -> dict[str, str]:
    """What is written for one version: Kubernetes wants two of its parts besides."""
    if name != f"{_BASE}.gitVersion":
        return {name: number}
    major, minor, _ = number.removeprefix("v").split(".", 2)
    return {name: number, f"{_BASE}.gitMajor": major, f"{_BASE}.gitMinor": minor}


def _flags(module: Module) -> tuple[str, ...]:
    return flags((module.folder / "go.mod").read_text(), module)


def go() -> str:
    """Path of the Go compiler."""
    found = find("go") or find("/usr/local/go/bin/go")
    if found is None:
        raise ClusterError(
            "Go is missing (the local cluster is built from its modules): install Go 1.26 or newer"
        )
    return found


def folder(module: Module = CLUSTER) -> Path:
    """Where the programs of a module belong in the cache."""
    compiler = run([go(), "env", "GOVERSION", "GOOS", "GOARCH"], cwd=module.folder)
    sources = [str(item) for item in sorted(module.sources.items())]
    digest = folders.digest(*inputs(module), *_flags(module), compiler, *sources)
    return folders.cache() / "binaries" / digest


def groups(missing: Collection[str], module: Module = CLUSTER) -> dict[str, tuple[Binary, ...]]:
    """What is still to be built, by group, in the order of the table."""
    found: dict[str, tuple[Binary, ...]] = {}
    for binary in module.binaries:
        if binary.name in missing:
            found[binary.group] = (*found.get(binary.group, ()), binary)
    return found


def ensure(module: Module = CLUSTER, names: Iterable[str] | None = None) -> Path:
    """Folder that holds the programs of a module, or the named ones; builds what is missing."""
    target = folder(module)
    wanted = {binary.name for binary in module.binaries} if names is None else set(names)
    if _missing(target, wanted) or not all((target / name).is_dir() for name in module.sources):
        with folders.locked(folders.cache() / "binaries.lock", "building the cluster's binaries"):
            for group, members in groups(_missing(target, wanted), module).items():
                with step(f"build {group} ({', '.join(member.name for member in members)})"):
                    _build(target, module, members)
            for name in module.sources:
                _copy_sources(target, module, name)
            _prune(target)
    os.utime(target)
    return target


def _prune(target: Path) -> None:
    """Remove what no checkout has used for a while; a running cluster's were used at its start."""
    oldest = time.time() - KEPT_DAYS * 86400
    for other in target.parent.iterdir():
        if other != target and other.stat().st_mtime < oldest:
            folders.remove_tree(other)


def _missing(target: Path, wanted: set[str]) -> set[str]:
    return {name for name in wanted if not (target / name).is_file()}


def _environment() -> dict[str, str]:
    return {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def _build(target: Path, module: Module, members: Iterable[Binary]) -> None:
    members = tuple(members)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as temporary:
        packages = [member.package for member in members]
        argv = [go(), "build", *_flags(module), "-o", temporary + os.sep, *packages]
        run(argv, cwd=module.folder, env=_environment(), timeout=3600)
        for member in members:
            Path(temporary, member.output or member.name).replace(target / member.name)


def _copy_sources(target: Path, module: Module, name: str) -> None:
    """Copy a folder of a required module, less its tests, unless it is there."""
    if (target / name).is_dir():
        return
    required, below = module.sources[name]
    argv = [go(), "mod", "download", "-json", required]
    origin = json.loads(run(argv, cwd=module.folder, env=_environment(), timeout=600))["Dir"]
    with tempfile.TemporaryDirectory(prefix=".copying-", dir=target.parent) as temporary:
        copy = Path(temporary, name)
        shutil.copytree(Path(origin, below), copy, ignore=shutil.ignore_patterns("*tests"))
        copy.replace(target / name)


def ensure_kind() -> str:
    """Path of kind: the one of the machine, else one built into the cache."""
    if (present := find("kind")) is not None:
        return present
    target = folders.cache() / "binaries" / folders.digest(KIND)
    with folders.locked(folders.cache() / "binaries.lock", "building kind"):
        if not (target / "kind").is_file():
            with step(f"build kind ({KIND})"):
                env = {**_environment(), "GOBIN": str(target)}
                run([go(), "install", KIND], env=env, timeout=3600)
    return str(target / "kind")
