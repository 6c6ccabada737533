"""The ConfigMaps that hold a patch too large for the journal: immutable, and the task's own.

A part's name holds the digest of the whole patch, so that making it twice makes it once.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.api import names
from ratchet.build.generation import Manifest

KEY = "patch"
"""The key of a part's bytes, in `binaryData`."""
PART_BYTES = 700 * 1024
"""Bytes of a part: base64 makes them 933 KiB, and an object may have 1.5 MiB in etcd."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a patch, and the ConfigMap that holds it."""

    name: str
    content: bytes
    manifest: Manifest


def parts(
    namespace: str, task: str, uid: str, patch: bytes, sha256: str, size: int = PART_BYTES
) -> Sequence[Part]:
    """The parts of a patch, in order. `sha256`: of the whole, in hex."""
    pieces = [patch[at : at + size] for at in range(0, len(patch), size)]
    return [_part(namespace, task, uid, sha256, n, piece) for n, piece in enumerate(pieces)]


def content(found: Mapping[str, Any]) -> bytes | None:
    """The bytes in a ConfigMap that was read; None if it holds no part."""
    try:
        return base64.b64decode((found.get("binaryData") or {})[KEY], validate=True)
    except (KeyError, ValueError, TypeError):
        return None


def _part(namespace: str, task: str, uid: str, sha256: str, number: int, piece: bytes) -> Part:
    name = names.patch_part_name(task, uid, sha256, number)
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.TASK_KIND,
        "name": task,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,  # deleting the task must never hang
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": names.task_labels(uid, component=names.COMPONENT_PATCH),
            "ownerReferences": [owner],
        },
        "immutable": True,
        "binaryData": {KEY: base64.b64encode(piece).decode()},
    }
    return Part(name, piece, manifest)
