"""One sandbox of one task: what all its objects share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet.api import names

Manifest = dict[str, Any]
"""A Kubernetes object as its JSON."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The `number`-th sandbox of a task. Its pod, Secret, ConfigMap and NetworkPolicy share a name."""

    namespace: str
    task: str
    task_uid: str
    number: int

    @property
    def name(self) -> str:
        return names.sandbox_name(self.task, self.task_uid, self.number)

    @property
    def labels(self) -> dict[str, str]:
        return names.sandbox_labels(self.task_uid, generation=self.number)

    @property
    def claim_name(self) -> str:
        """The claim of the task's workspace: the same for all generations."""
        return names.workspace_claim_name(self.task, self.task_uid)

    def pod_metadata(self) -> Manifest:
        """Name, labels and owner of the pod: the task."""
        return self._metadata(names.API_VERSION, names.TASK_KIND, self.task, self.task_uid)

    def claim_metadata(self) -> Manifest:
        """Name, labels and owner of the claim: the task. The label says who made it."""
        return {**self.pod_metadata(), "name": self.claim_name}

    def part_metadata(self, pod_uid: str) -> Manifest:
        """Name, labels and owner of what the pod needs: the pod.

        So Kubernetes removes it after the pod, not before: a pod on its way out keeps its network
        policy to the end.
        """
        return self._metadata("v1", "Pod", self.name, pod_uid)

    def _metadata(self, api_version: str, kind: str, owner: str, uid: str) -> Manifest:
        reference = {
            "apiVersion": api_version,
            "kind": kind,
            "name": owner,
            "uid": uid,
            "controller": True,
            "blockOwnerDeletion": False,  # deleting the owner must never hang
        }
        return {
            "name": self.name,
            "namespace": self.namespace,
            "labels": self.labels,
            "ownerReferences": [reference],
        }
