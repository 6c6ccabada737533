"""A stand-in behind our own handlers."""

from __future__ import annotations

import kopf
from ratchet.shell.freshness import Freshness
from ratchet.shell.handlers import register
from ratchet.shell.supervisor import PodSeen, Supervisor, TaskSeen

from tests.kopf_contract.bell import Bell


class Noting(Supervisor):
    """Stands where the supervisor stands, and notes what our handlers make of events."""

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.tasks: list[TaskSeen] = []
        self.pods: list[PodSeen] = []

    def task_seen(self, seen: TaskSeen) -> None:
        self.tasks.append(seen)
        self.bell.ring()

    def pod_seen(self, seen: PodSeen) -> None:
        self.pods.append(seen)
        self.bell.ring()

    def register(self, registry: kopf.OperatorRegistry) -> None:
        register(registry, self, Freshness())
