"""Images of the local cluster: imported into its containerd, no registry needed."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.local.node import PAUSE, SOCKET


def archive(name: str, files: dict[str, bytes], entrypoint: list[str]) -> bytes:
    """A docker-archive of one layer with these executable files."""
    layer = _tar(files, mode=0o755)
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Entrypoint": entrypoint},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    content = {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        "layer.tar": layer,
    }
    return _tar(content, mode=0o644)


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _architecture() -> str:
    machine = run(["uname", "-m"]).strip()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def ctr(enter: Sequence[str]) -> list[str]:
    """Beginning of a command line for containerd's images, from outside the node."""
    return [*enter, "/run/ratchet/bin/ctr", "-a", SOCKET, "-n", "k8s.io", "images"]


def load_pause(enter: Sequence[str], state: Path, binary: Path) -> None:
    """Import the image that every pod's sandbox runs."""
    tar = state / "pause.tar"
    tar.write_bytes(archive(PAUSE, {"pause": binary.read_bytes()}, ["/pause"]))
    run([*ctr(enter), "import", f"/run/ratchet/state/{tar.name}"])
    tar.unlink()
