"""What the local cluster needs of the distribution, and installing it where we may."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import find, run, step
from tests.cluster.errors import ClusterError

PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
PLUGINS = ("ptp", "host-local", "loopback")


@dataclass(frozen=True, slots=True)
class Need:
    """A program (or another file) and the Debian package that brings it."""

    program: str
    package: str


NODE = (
    Need("runc", "runc"),
    Need("ptp", "containernetworking-plugins"),
    Need("nft", "nftables"),
    Need("conntrack", "conntrack"),
    Need("ip", "iproute2"),
    Need("mount", "mount"),
    Need("nsenter", "util-linux"),
    Need("openssl", "openssl"),
)
CILIUM = (Need("clang-19", "clang-19"), Need("iptables", "iptables"))
"""The agent compiles its eBPF programs when it starts. Version 19 is what Cilium 1.20 is built with
in its own images."""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
IMAGES = (
    Need("buildah", "buildah"),
    Need("mmdebstrap", "mmdebstrap"),
    Need(KEYRING, "debian-archive-keyring"),
)


def plugin_folder() -> Path | None:
    """Folder of the network plugins, or None."""
    for folder in PLUGIN_FOLDERS:
        if all((folder / plugin).is_file() for plugin in PLUGINS):
            return folder
    return None


def present(need: Need) -> bool:
    """Whether this machine has it."""
    if need.program in PLUGINS:
        return plugin_folder() is not None
    if need.program == KEYRING:
        return Path(KEYRING).is_file()
    return find(need.program) is not None


def missing(needs: Iterable[Need], has: Callable[[Need], bool] = present) -> tuple[str, ...]:
    """Packages to install, each once."""
    return tuple(dict.fromkeys(need.package for need in needs if not has(need)))


def ensure(needs: Iterable[Need]) -> None:
    """Install what is missing; raises `ClusterError` with one line that says what to install."""
    wanted = missing(needs)
    if not wanted:
        return
    advice = f"install {' '.join(wanted)} (for example: apt-get install {' '.join(wanted)})"
    if os.geteuid() != 0 or find("apt-get") is None:
        raise ClusterError(f"programs are missing: {advice}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"install {', '.join(wanted)}"):
        try:
            run(["apt-get", "update", "-q"], env=quiet, timeout=600)
            argv = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *wanted]
            run(argv, env=quiet, timeout=900)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{advice}") from error
    if still := missing(wanted_needs(needs, wanted)):
        raise ClusterError(f"{' '.join(still)} did not bring what is needed")


def wanted_needs(needs: Iterable[Need], packages: Iterable[str]) -> tuple[Need, ...]:
    """The needs that these packages were to meet."""
    names = set(packages)
    return tuple(need for need in needs if need.package in names)
