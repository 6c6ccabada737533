"""Slots: which checkout owns which addresses and names on this machine.

Every local cluster is one machine of its own (network, mount and process namespaces), joined to
this one by a pair of virtual interfaces. A slot's number decides all that both sides must agree
on; the registry of slots is machine-wide and held under a lock, so two checkouts never clash.
"""

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.folders import write_text

SLOTS = 32
"""Clusters that fit on one machine: 10.200.0.0/16 to 10.231.0.0/16, one each."""
BROAD = 13
"""A route with a shorter prefix (a VPN's 10.0.0.0/8) does not block a slot: ours are narrower."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one cluster on this machine."""

    number: int

    @property
    def name(self) -> str:
        """Name of node, cgroup and folder."""
        return f"ratchet-{self.number}"

    @property
    def network(self) -> IPv4Network:
        """All addresses of the slot."""
        return IPv4Network((f"10.{200 + self.number}.0.0", 16))

    @property
    def interface(self) -> str:
        """Our end of the pair of interfaces."""
        return f"ratchet{self.number}"

    @property
    def host_ip(self) -> IPv4Address:
        """Address of this machine as pods see it."""
        return self.network[1]

    @property
    def node_ip(self) -> IPv4Address:
        """Address of the cluster's only node, and of its API server."""
        return self.network[2]

    @property
    def pods(self) -> IPv4Network:
        """Addresses of pods."""
        return IPv4Network((self.network[64 * 256], 18))

    @property
    def services(self) -> IPv4Network:
        """Addresses of services."""
        return IPv4Network((self.network[128 * 256], 18))

    @property
    def apiserver_service_ip(self) -> IPv4Address:
        """Address of the service `kubernetes` (the first of the range, by Kubernetes' rule)."""
        return self.services[1]

    @property
    def dns_ip(self) -> IPv4Address:
        """Address of the service `kube-dns`."""
        return self.services[10]


def blocks(route: IPv4Network, slot: Slot) -> bool:
    """Whether a route that exists already forbids the addresses of a slot."""
    return route.prefixlen >= BROAD and route.overlaps(slot.network)


def choose(taken: Mapping[int, str], checkout: str, routes: Iterable[IPv4Network]) -> Slot:
    """The slot of a checkout: the one it has, else the first free one.

    Raises `ClusterError` if every slot is taken or its addresses are in use.
    """
    for number, owner in taken.items():
        if owner == checkout:
            return Slot(number)
    known = list(routes)
    for number in range(SLOTS):
        slot = Slot(number)
        if number not in taken and not any(blocks(route, slot) for route in known):
            return slot
    raise ClusterError(
        f"all {SLOTS} places for local clusters are taken (10.200.0.0/16 to 10.231.0.0/16): "
        "run `make cluster-down` in a checkout that no longer needs its own"
    )


def abandoned(taken: Mapping[int, str]) -> tuple[int, ...]:
    """Slots whose checkout no longer exists."""
    return tuple(number for number, owner in taken.items() if not Path(owner).is_dir())


def parse_routes(listing: str) -> tuple[IPv4Network, ...]:
    """IPv4 networks of `ip -j route show table all`; the default route and others are left out."""
    found = []
    for entry in json.loads(listing or "[]"):
        try:
            found.append(ipaddress.IPv4Network(str(entry.get("dst", "")), strict=False))
        except ValueError:
            continue
    return tuple(found)


def read(registry: Path) -> dict[int, str]:
    """Owner of each slot by number. The caller holds the lock."""
    try:
        return {
            int(number): str(owner) for number, owner in json.loads(registry.read_text()).items()
        }
    except FileNotFoundError:
        return {}


def save(registry: Path, taken: Mapping[int, str]) -> None:
    """Write the owners back. The caller holds the lock."""
    write_text(registry, json.dumps({str(k): v for k, v in sorted(taken.items())}, indent=2) + "\n")
