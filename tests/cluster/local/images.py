"""Images of the local cluster: imported into its containerd, no registry needed."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import folders
from tests.cluster.commands import run, say, step, succeeds, wait_until
from tests.cluster.errors import ClusterError
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
    """Beginning of a command line for containerd, from outside the node."""
    return [*enter, "/run/ratchet/bin/ctr", "-a", SOCKET, "-n", "k8s.io"]


def load_pause(enter: Sequence[str], state: Path, binary: Path) -> None:
    """Import the image that every pod's sandbox runs, once containerd answers."""
    asked = [*ctr(enter), "version"]
    wait_until("containerd to answer", lambda: succeeds(asked), 30.0)
    load_program(enter, state, PAUSE, binary)


def load_program(enter: Sequence[str], state: Path, image: str, binary: Path) -> None:
    """Import an image that holds one program and runs it."""
    tar = state / f"{binary.name}.tar"
    content = {binary.name: binary.read_bytes()}
    tar.write_bytes(archive(image, content, [f"/{binary.name}"]))
    run([*ctr(enter), "images", "import", f"/run/ratchet/state/{tar.name}"])
    tar.unlink()


def contents(tar: Path) -> dict[str, str]:
    """Names of the images in a docker-archive, each with the digest of its configuration."""
    try:
        with tarfile.open(tar) as archive_file:
            member = archive_file.extractfile("manifest.json")
            entries = json.loads(member.read()) if member is not None else []
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise ClusterError(f"{tar} is no docker-archive: {error}") from error
    return {
        canonical(tag): str(entry["Config"]) for entry in entries for tag in entry["RepoTags"] or ()
    }


def canonical(tag: str) -> str:
    """The full name of an image, as containerd keeps it: `a:1` is `docker.io/library/a:1`."""
    first, slash, _ = tag.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return tag
    return f"docker.io/{tag}" if slash else f"docker.io/library/{tag}"


def load(enter: Sequence[str], state: Path, tar: Path) -> None:
    """Import a docker-archive, unless its images are there with this very content."""
    record = state / "images.json"
    known: dict[str, str] = json.loads(record.read_text()) if record.is_file() else {}
    wanted = contents(tar)
    there = set(run([*ctr(enter), "images", "list", "-q"]).split())
    if all(tag in there and known.get(tag) == config for tag, config in wanted.items()):
        say(f"{', '.join(wanted)} is loaded already")
        return
    with step(f"load {', '.join(wanted)}"), tar.open("rb") as content:
        run([*ctr(enter), "images", "import", "-"], source=content, timeout=600)
    folders.write_text(record, json.dumps({**known, **wanted}, indent=2) + "\n")
