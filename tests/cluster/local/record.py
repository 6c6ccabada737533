"""What was started for a slot, written down so that a later command ends just that."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import folders
from tests.cluster.local import processes
from tests.cluster.local.processes import Identity
from tests.cluster.local.slots import Slot
from tests.cluster.networks import Network


@dataclass(frozen=True, slots=True)
class Record:
    """A running node and its parts."""

    init: Identity
    """First process of the node; when it is killed, the kernel ends all others."""
    binaries: str
    """Folder that the parts run from."""
    settings: str
    """Digest of everything that decides how the parts are started."""
    parts: dict[str, Identity] = field(default_factory=dict)
    network: Network = Network.PLAIN


def folder(slot: Slot) -> Path:
    """State of a slot on this machine's disk."""
    return folders.state() / slot.name


def save(slot: Slot, record: Record) -> None:
    """Write the record."""
    whole = {
        "init": processes.dump(record.init),
        "binaries": record.binaries,
        "settings": record.settings,
        "network": record.network.value,
        "parts": {name: processes.dump(part) for name, part in record.parts.items()},
    }
    folders.write_text(folder(slot) / "node.json", json.dumps(whole, indent=2) + "\n")


def read(slot: Slot) -> Record | None:
    """The record of a slot, or None where there is none that can be read."""
    try:
        whole = json.loads((folder(slot) / "node.json").read_text())
        parts = {str(name): processes.load(part) for name, part in whole["parts"].items()}
        init = processes.load(whole["init"])
        network = Network(whole.get("network", Network.PLAIN.value))
        return Record(init, str(whole["binaries"]), str(whole["settings"]), parts, network)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
