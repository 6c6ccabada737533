"""The two homes of a journal, as the contract sees them: in memory, and on an API server."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol

from ratchet.api import names
from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.facts import Asking
from ratchet.edges import kube, taskstatus
from ratchet.edges.claim import KubeJournals
from ratchet.edges.kube import JSON, TIMEOUT_S, Api, ApiUnreachable, Kube, Params
from ratchet.fakes.journal import FakeJournals, Stage, Store, StoredTask
from ratchet.ports import JournalAway, Journals, TaskRef

GOAL = "Make the test pass."
DEADLINE_S = 3600
OPERATIONS = {
    "claim": ("PATCH", names.TASK_PLURAL),
    "append": ("POST", names.TURN_PLURAL),
    "record_results": ("PATCH", names.TURN_PLURAL),
    "record_rerun": ("PATCH", names.TURN_PLURAL),
    "mark_asking": ("PATCH", names.TASK_PLURAL),
    "set_sandbox": ("PATCH", names.TASK_PLURAL),
    "summarise": ("PATCH", names.TASK_PLURAL),
}
"""Each operation of the port, and the request that does it on an API server."""


@dataclass(slots=True)
class Cuts:
    """Connections that will break: each once, at the next request of its operation."""

    waiting: list[tuple[str, Stage]] = field(default_factory=list)

    def cut(self, operation: str, stage: Stage) -> None:
        self.waiting.append((operation, stage))

    def strikes(self, operation: str, stage: Stage) -> bool:
        if (operation, stage) not in self.waiting:
            return False
        self.waiting.remove((operation, stage))
        return True


class Home(Protocol):
    """What the contract needs of a home beside the port."""

    cuts: Cuts

    @property
    def journals(self) -> Journals: ...
    async def create(self, name: str = "task") -> TaskRef: ...
    async def delete(self, task: TaskRef) -> None: ...
    async def cancel(self, task: TaskRef) -> None: ...
    async def phase(self, task: TaskRef) -> str: ...
    async def asking(self, task: TaskRef) -> Asking | None: ...


@dataclass(slots=True)
class FakeHome:
    """A store in memory."""

    cuts: Cuts = field(default_factory=Cuts)
    store: Store = field(default_factory=Store)

    @property
    def journals(self) -> Journals:
        return FakeJournals(self.store, self._fault)

    async def _fault(self, operation: str, stage: Stage) -> None:
        if self.cuts.strikes(operation, stage):
            raise JournalAway(f"the test cut {operation} off")

    async def create(self, name: str = "task") -> TaskRef:
        task = TaskRef("test", name, str(uuid.uuid4()))
        model = ModelConfig("default", "http://model/v1", "m")
        config = Config(GOAL, model, SandboxConfig("debian:12"), active_deadline_s=DEADLINE_S)
        self.store.add(task, config)
        return task

    async def delete(self, task: TaskRef) -> None:
        self.store.delete(task)

    async def cancel(self, task: TaskRef) -> None:
        self._task(task).cancel = True

    async def phase(self, task: TaskRef) -> str:
        summary = self._task(task).summary
        return summary.phase.value if summary else "Pending"

    async def asking(self, task: TaskRef) -> Asking | None:
        return self._task(task).asking

    def _task(self, task: TaskRef) -> StoredTask:
        return self.store.tasks[task.namespace, task.name]


@dataclass(slots=True)
class CuttingApi:
    """An API server whose connection breaks when a test says so (kube.Api)."""

    api: Api
    cuts: Cuts

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        self._cut(method, path, Stage.BEFORE)
        answer = await self.api.request(
            method, path, body, params=params, content_type=content_type, timeout_s=timeout_s
        )
        self._cut(method, path, Stage.AFTER)
        return answer

    def _cut(self, method: str, path: str, stage: Stage) -> None:
        for operation, (verb, plural) in OPERATIONS.items():
            if method == verb and f"/{plural}" in path and self.cuts.strikes(operation, stage):
                raise ApiUnreachable(f"the test cut {method} {path} off")


@dataclass(slots=True)
class ClusterHome:
    """A namespace of a real cluster, with a default endpoint and a default class."""

    api: Kube
    namespace: str
    cuts: Cuts = field(default_factory=Cuts)

    async def prepare(self) -> None:
        """Create what every task needs."""
        endpoint = {"url": "http://model/v1", "model": "m"}
        await self.make(names.ENDPOINT_KIND, names.ENDPOINT_PLURAL, "default", endpoint)
        shape = {"image": "debian:12"}
        await self.make(names.CLASS_KIND, names.CLASS_PLURAL, "default", shape)

    async def make(self, kind: str, plural: str, name: str, spec: Any) -> dict[str, Any]:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        strict = {"fieldValidation": "Strict"}
        return await self.api.request(
            "POST", kube.ours(plural, self.namespace), body, params=strict
        )

    @property
    def journals(self) -> Journals:
        return KubeJournals(CuttingApi(self.api, self.cuts))

    async def create(self, name: str = "task", **spec: Any) -> TaskRef:
        spec = {"goal": GOAL, "activeDeadlineSeconds": DEADLINE_S, **spec}
        found = await self.make(names.TASK_KIND, names.TASK_PLURAL, name, spec)
        return TaskRef(self.namespace, name, found["metadata"]["uid"])

    async def delete(self, task: TaskRef) -> None:
        await self.api.request("DELETE", kube.task(task.namespace, task.name))

    async def cancel(self, task: TaskRef) -> None:
        await self.patch(task, {"spec": {"cancel": True}})

    async def patch(self, task: TaskRef, patch: Any, part: str = "") -> dict[str, Any]:
        """What people do with kubectl."""
        path = kube.task(task.namespace, task.name, part)
        return await self.api.request("PATCH", path, patch, content_type=kube.MERGE_PATCH)

    async def get(self, task: TaskRef) -> dict[str, Any]:
        return await self.api.request("GET", kube.task(task.namespace, task.name))

    async def phase(self, task: TaskRef) -> str:
        return str((await self.get(task))["status"]["phase"])

    async def asking(self, task: TaskRef) -> Asking | None:
        return taskstatus.asking_of(await self.get(task))
