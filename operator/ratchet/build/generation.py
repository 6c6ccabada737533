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

    def metadata(self) -> Manifest:
        """Name, labels and owner. The owner does not block: deleting a task must never hang."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "labels": self.labels,
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.TASK_KIND,
                    "name": self.task,
                    "uid": self.task_uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        }
