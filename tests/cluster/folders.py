"""Where things are kept: the checkout's `build/cluster`, and the user's cache and state folders.

The cache (binaries, base images) and the registry of slots are machine-wide, so that a second
checkout builds nothing again and never takes the addresses of the first.
"""

import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.errors import ClusterError

CHECKOUT = Path(__file__).resolve().parents[2]
NAME = "RATCHET_CLUSTER"
"""Variable that names another cluster of this checkout; unset or empty, it is the usual one."""


def name() -> str:
    """Name of the cluster that is meant; empty for the usual one. Raises `ClusterError`."""
    given = os.environ.get(NAME, "")
    if given and re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", given) is None:
        raise ClusterError(f"{NAME}={given}: use up to 32 of a-z, 0-9 and - within")
    return given


def build() -> Path:
    """Folder of the cluster that is meant, in the checkout."""
    return CHECKOUT / "build" / (f"cluster-{name()}" if name() else "cluster")


def owner() -> str:
    """Folder that the cluster's slot is registered for, and without which it is abandoned."""
    return str(build() if name() else CHECKOUT)


def _base(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    return Path(given) if given.startswith("/") else Path.home() / default


def cache() -> Path:
    """Folder of what can be made again: `$XDG_CACHE_HOME/ratchet`."""
    return _base("XDG_CACHE_HOME", ".cache") / "ratchet"


def state() -> Path:
    """Folder of the slots of this machine: `$XDG_STATE_HOME/ratchet/cluster`."""
    return _base("XDG_STATE_HOME", ".local/state") / "ratchet" / "cluster"


@contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Hold an exclusive file lock; says so when another process makes it wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process: {purpose}", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def digest(*parts: str | bytes) -> str:
    """24 hexadecimal digits that name these parts, in this order."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:24]


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    temporary.replace(path)


def remove_tree(path: Path) -> None:
    """Delete a folder if it is there."""
    if path.exists():
        shutil.rmtree(path)
