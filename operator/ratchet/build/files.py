"""The ConfigMap that carries a task's start files into its sandbox.

A ConfigMap's keys cannot be paths, so files are numbered and `index.json` says where each goes:
``[{"path": "src/a.py", "source": "f0", "mode": "0644"}]``. The init container reads it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ratchet.build.generation import Generation, Manifest

INDEX = "index.json"
BYTES_MAX = 1_000_000
"""Most bytes of all files together. Kubernetes takes 1 MiB in a ConfigMap, index included."""
MODES = ("0644", "0755")


class FilesUnfit(ValueError):
    """The start files cannot be brought into a sandbox. The text says which and what to change."""


@dataclass(frozen=True, slots=True)
class StartFile:
    """A file of the start workspace, its content read."""

    path: str
    content: bytes
    mode: str = "0644"


def sandbox_files(generation: Generation, pod_uid: str, files: Sequence[StartFile]) -> Manifest:
    """The ConfigMap of these files. Raises FilesUnfit."""
    check_files(files)
    index = [
        {"path": file.path, "source": f"f{number}", "mode": file.mode}
        for number, file in enumerate(files)
    ]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": generation.part_metadata(pod_uid),
        "immutable": True,
        "data": {INDEX: json.dumps(index)},
        "binaryData": {
            f"f{number}": base64.b64encode(file.content).decode()
            for number, file in enumerate(files)
        },
    }


def check_files(files: Sequence[StartFile]) -> None:
    """Raise FilesUnfit unless all paths stay inside the workspace and the whole is small enough."""
    seen: set[str] = set()
    for file in files:
        _check_path(file.path)
        if file.path in seen:
            raise FilesUnfit(f"spec.files has {file.path!r} twice: give each path once")
        if file.mode not in MODES:
            raise FilesUnfit(f"spec.files: the mode of {file.path!r} is not one of {MODES}")
        seen.add(file.path)
    _check_folders(seen)
    size = sum(len(file.content) for file in files)
    if size > BYTES_MAX:
        raise FilesUnfit(
            f"spec.files have {size} bytes together, more than the {BYTES_MAX} that fit into a "
            "ConfigMap: leave large files out"
        )


def _check_path(path: str) -> None:
    parts = path.split("/")
    wrong = {"", ".", "..", ".git", ".ratchet"}.intersection(parts)
    if wrong or "\\" in path or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise FilesUnfit(
            f"spec.files: {path!r} is not a path inside the workspace: write it like src/main.py"
        )


def _check_folders(paths: set[str]) -> None:
    for path in paths:
        for parent in PurePosixPath(path).parents:
            if str(parent) in paths:
                raise FilesUnfit(f"spec.files: {str(parent)!r} is both a file and a folder")
