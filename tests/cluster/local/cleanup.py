"""Ending a slot: its processes, mounts, interface, control groups and files, in this order.

Works on what a killed run left behind just as on a cluster in good health. It ends only what
was recorded, or what names the slot's own state folder as the node's first process does.
"""

from pathlib import Path

from tests.cluster import folders
from tests.cluster.commands import say, wait_until
from tests.cluster.errors import ClusterError
from tests.cluster.local import cgroups, network, processes, record, slots
from tests.cluster.local.processes import Identity
from tests.cluster.local.slots import Slot

INIT = "nodeinit.py"
OUTER_INIT_ARGUMENTS = 2
GRACE_S = 90.0
"""How long the kernel may take to end all processes of a node: 45 s were seen on a busy machine with
pods under gVisor, which are process namespaces within the node's."""


def is_init(arguments: tuple[str, ...], spec: str) -> bool:
    """Whether a command line is that of the first process of the node with this specification."""
    return (
        len(arguments) > OUTER_INIT_ARGUMENTS
        and arguments[-1] == spec
        and arguments[-2].endswith("/" + INIT)
    )


def _inits(slot: Slot) -> tuple[Identity, ...]:
    """The node's first process and the `unshare` above it."""
    spec = str(record.folder(slot) / "spec.json")
    found = [
        identity
        for pid in processes.pids()
        if is_init(processes.arguments(pid), spec)
        and (identity := processes.identify(pid)) is not None
    ]
    return tuple(found)


def leftovers(slot: Slot) -> tuple[str, ...]:
    """What is there of a slot, in words; empty if it is clean."""
    found = [f"process {identity.pid}" for identity in _inits(slot)]
    if network.exists(slot):
        found.append(f"interface {slot.interface}")
    if cgroups.remains(slot.name):
        found.append(f"control groups {slot.name}")
    if record.folder(slot).exists():
        found.append(str(record.folder(slot)))
    return tuple(found)


def end(slot: Slot) -> None:
    """Take everything of a slot away."""
    _end_processes(slot)
    network.disconnect(slot)
    cgroups.remove(slot.name)
    folder = record.folder(slot)
    _refuse_mounts(folder)
    folders.remove_tree(folder)


def _end_processes(slot: Slot) -> None:
    ours = processes.namespace(1)
    known = record.read(slot)
    if known is not None:
        for identity in (known.init, *known.parts.values()):
            _end_node_of(identity, ours)
    for identity in _inits(slot):
        _end_node_of(identity, ours)


def _end_node_of(identity: Identity, ours: str | None) -> None:
    """End a process, and all that share its process namespace unless that is the machine's."""
    if not processes.alive(identity):
        return
    inside = processes.namespace(identity.pid)
    processes.kill(identity, GRACE_S)
    if inside is not None and inside not in (ours, processes.namespace(_self())):
        wait_until("the node's processes to end", lambda: not processes.members(inside), GRACE_S)


def _self() -> int:
    return int(Path("/proc/self").readlink().name)


def _refuse_mounts(folder: Path) -> None:
    """Never delete through a mount, whoever made it."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    below = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{folder}/")]
    if below:
        raise ClusterError(f"{below[0]} is still mounted: run `umount {below[0]}` and try again")


def end_abandoned(registry: Path) -> None:
    """Free the slots of checkouts that no longer exist. The caller holds the registry's lock."""
    taken = slots.read(registry)
    for number in slots.abandoned(taken):
        say(f"cleaning up after {taken[number]}, which is gone")
        end(Slot(number))
        del taken[number]
        slots.save(registry, taken)
