"""The way between this machine and a slot's node: one pair of interfaces and two routes.

Nothing else of this machine's network is touched: the firewall rules of the cluster live in the
node's own network namespace and end with it.
"""

from ipaddress import IPv4Network

from tests.cluster.commands import find, run, succeeds
from tests.cluster.errors import ClusterError
from tests.cluster.local import slots
from tests.cluster.local.slots import Slot


def ip() -> str:
    """Path of the program `ip`."""
    found = find("ip")
    if found is None:
        raise ClusterError("the program `ip` is missing: install the package iproute2")
    return found


def routes() -> tuple[IPv4Network, ...]:
    """IPv4 routes of this machine."""
    return slots.parse_routes(run([ip(), "-j", "-4", "route", "show", "table", "all"]))


def exists(slot: Slot) -> bool:
    """Whether the slot's interface is there."""
    return succeeds([ip(), "link", "show", slot.interface])


def connect(slot: Slot, pid: int) -> None:
    """Join this machine with the node whose first process is `pid`."""
    prefix = 30
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", ip()]
    pair = f"link add {slot.interface} type veth peer name eth0 netns {pid}"
    run([ip(), *pair.split()])
    run([ip(), "address", "add", f"{slot.host_ip}/{prefix}", "dev", slot.interface])
    run([ip(), "link", "set", slot.interface, "up"])
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "address", "add", f"{slot.node_ip}/{prefix}", "dev", "eth0"])
    run([*inside, "link", "set", "eth0", "up"])
    run([*inside, "route", "add", "default", "via", str(slot.host_ip)])
    for network in (slot.pods, slot.services):
        run([ip(), "route", "add", str(network), "via", str(slot.node_ip)])


def disconnect(slot: Slot) -> None:
    """Remove the pair; its addresses and routes go with it."""
    if exists(slot):
        try:
            run([ip(), "link", "delete", slot.interface])
        except ClusterError:
            # The kernel takes it away by itself, a moment after the node's last process.
            if exists(slot):
                raise
