"""The claim of a workspace: how it is made, and what its object says."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from ratchet.api import names
from ratchet.build.generation import Generation, Manifest
from ratchet.core.config import VolumeClaim


class Standing(Enum):
    """What a claim is to a generation of its task."""

    ABSENT = auto()
    OURS = auto()
    """It is the task's, and may hold the workspace of this generation."""
    FOREIGN = auto()
    """Something of its name is there that the task did not make."""
    NEWER = auto()
    """A later generation made it: whoever asks is behind the times."""
    LEAVING = auto()
    """It is being deleted, which takes until no pod uses it."""
    LOST = auto()
    """Its volume is no more, and what it held is gone with that."""


def workspace_claim(generation: Generation, wanted: VolumeClaim) -> Manifest:
    """The claim that this generation makes if there is none. It outlives pods and generations."""
    spec: dict[str, Any] = {
        "accessModes": [str(wanted.access_mode)],
        "resources": {"requests": {"storage": wanted.size}},
    }
    if wanted.storage_class:
        spec["storageClassName"] = wanted.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": generation.claim_metadata(),
        "spec": spec,
    }


def standing(claim: Mapping[str, Any] | None, generation: Generation) -> Standing:
    """What the claim that was found is to this generation."""
    if claim is None:
        return Standing.ABSENT
    metadata = claim["metadata"]
    owners = metadata.get("ownerReferences") or ()
    if all(owner.get("uid") != generation.task_uid for owner in owners):
        return Standing.FOREIGN
    if made_by(claim) > generation.number:
        return Standing.NEWER
    if metadata.get("deletionTimestamp"):
        return Standing.LEAVING
    if (claim.get("status") or {}).get("phase") == "Lost":
        return Standing.LOST
    return Standing.OURS


def made_by(stored: Mapping[str, Any]) -> int:
    """The generation in the label of a claim or pod; 0 where there is none."""
    label = str((stored["metadata"].get("labels") or {}).get(names.LABEL_GENERATION, ""))
    return int(label) if label.isascii() and label.isdigit() else 0
