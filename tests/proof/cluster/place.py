"""The cluster of the proof, with the operator in it, and what is asked of its API server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.api import names
from ratchet.core.conditions import TERMINAL_PHASES
from ratchet.edges import kube
from ratchet.edges.kube import ApiError, ApiUnreachable, Kube
from sglang_fake import FakeSGLang

from tests.cluster import Cluster, ClusterError
from tests.e2e import images
from tests.e2e.volumes import claimable, real_node
from tests.proof.cluster import tools
from tests.proof.cluster.plan import OOM, Trial, shapes
from tests.proof.cluster.waiting import LOOK_S, comes_true
from tests.proof.ledger import Ledger
from tests.proof.shapes import goal, script
from tools.install import NAMESPACE as SYSTEM

NAMESPACE = "proof"
"""Where the tasks are."""
SMALL = "small"
"""A SandboxClass with little memory."""
OPERATOR = f"{names.LABEL_PART_OF}={names.MANAGED_BY},{names.LABEL_COMPONENT}=operator"
HEALTHY_WITHIN_S = 90.0

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """A task that was made."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Place:
    """The cluster, and beside it what is never disturbed: the model and the outside ledger."""

    cluster: Cluster
    api: Kube
    ledger: Ledger
    fake: FakeSGLang
    folder: Path
    """For logs."""

    async def tool(self, module: str, *words: str) -> None:
        """Run one of the project's commands on this cluster. Raises ClusterError."""
        await tools.run(self.folder / "tools.log", module, *words)

    async def parts(self, *words: str) -> None:
        """`python -m tests.cluster WORDS...`: stop or start a part. Raises ClusterError."""
        await self.tool("tests.cluster", *words)

    @asynccontextmanager
    async def storage(self, trial: Trial) -> AsyncIterator[None]:
        """Where the workspace of a trial's task is, if not on the node's disk. Raises ClusterError."""
        if not trial.kind.claim:
            yield
            return
        async with claimable(self.cluster, self.api) as claim:
            await self._sandbox_class(trial.name, workspace={"volumeClaim": claim})
            yield

    async def begin(self, trial: Trial, suffix: str = "") -> list[Task]:
        """Make the tasks of a trial. Raises ClusterError if the API server does not take them."""
        made = []
        for number, policy in enumerate(trial.policies):
            spec: Object = {"goal": goal(trial.name), "onUnknownOutcome": policy.value}
            if trial.kind is OOM:
                spec["sandbox"] = {"classRef": {"name": SMALL}}
            if trial.kind.claim:
                spec["sandbox"] = {"classRef": {"name": trial.name}}
            body = custom("AgentTask", f"{trial.name}-{'abc'[number]}{suffix}", spec)
            found = await self._apply(kube.ours(names.TASK_PLURAL, NAMESPACE), body)
            made.append(Task(found["metadata"]["name"], found["metadata"]["uid"]))
        return made

    async def task(self, name: str) -> Object:
        """A task as it is. Raises ApiError or ApiUnreachable."""
        return await self.api.request("GET", kube.task(NAMESPACE, name), timeout_s=3)

    async def status(self, name: str) -> Object:
        """The status of a task; empty if it cannot be had now."""
        try:
            found: Object = (await self.task(name)).get("status") or {}
        except (ApiError, ApiUnreachable):
            return {}
        return found

    async def records(self, uid: str, timeout_s: float = 10.0) -> list[Object]:
        """The AgentTurns of a task. Raises ApiError or ApiUnreachable."""
        selector = names.task_selector(uid, component=names.COMPONENT_JOURNAL)
        params = {"labelSelector": selector}
        path = kube.turn(NAMESPACE)
        found = await self.api.request("GET", path, params=params, timeout_s=timeout_s)
        items: list[Object] = found.get("items") or []
        return sorted(items, key=lambda item: int(item["spec"]["number"]))

    async def ended(self, task: Task, within_s: float) -> bool:
        """Wait until a task has ended; False if it does not in time."""

        async def over() -> bool:
            return (await self.status(task.name)).get("phase") in TERMINAL_PHASES

        return await comes_true(over, within_s, every_s=2 * LOOK_S)

    async def delete(self, tasks: Sequence[Task]) -> None:
        """Delete tasks, and with them their records and pods."""
        for task in tasks:
            await self.api.request("DELETE", kube.task(NAMESPACE, task.name))

    async def sandbox(self, task: Task) -> Object:
        """The sandbox pod of a task as it is now. Raises ClusterError if there is none."""
        name = ((await self.status(task.name)).get("sandbox") or {}).get("pod")
        if not name:
            raise ClusterError(f"task {task.name} has no sandbox to disturb")
        return await self.api.request("GET", kube.core("pods", NAMESPACE, name))

    async def operators(self) -> list[Object]:
        """The operator's pods that run; an evicted one stays listed. Raises ClusterError if none."""
        params = {"labelSelector": OPERATOR}
        found = await self.api.request("GET", kube.core("pods", SYSTEM), params=params)
        pods = [pod for pod in found["items"] if pod["status"].get("phase") == "Running"]
        if not pods:
            raise ClusterError("the operator has no pod to disturb")
        return pods

    async def node(self) -> str:
        """Name of the only node."""
        return await real_node(self.api)

    async def healthy(self) -> None:
        """Wait until all parts of the cluster work. Raises ClusterError if they do not."""
        if not await comes_true(self._is_up, HEALTHY_WITHIN_S, every_s=1):
            raise ClusterError("the cluster did not come back by itself")

    async def _is_up(self) -> bool:
        try:
            await self.parts("status")
        except ClusterError:
            return False
        return True

    async def furnish(self) -> None:
        """Images, the charts, and the objects that tasks need; what is there already stays."""
        await self.tool("tools.images", "load")
        await self.tool("tools.install")
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await self._apply("/api/v1/namespaces", space)
        model = {"url": self.fake.base_url, "model": "fake", "engine": "SGLang"}
        await self._apply(
            kube.ours(names.ENDPOINT_PLURAL, NAMESPACE), custom("ModelEndpoint", "default", model)
        )
        await self._sandbox_class("default")
        await self._sandbox_class(SMALL, resources={"limits": {"memory": "192Mi"}})

    async def _sandbox_class(self, name: str, **more: Any) -> None:
        body = custom("SandboxClass", name, {"image": images.SHELL, **more})
        await self._apply(kube.ours(names.CLASS_PLURAL, NAMESPACE), body)

    async def clear(self) -> None:
        """Delete the tasks of an earlier run, whose cluster was kept. Raises ClusterError."""
        path = kube.ours(names.TASK_PLURAL, NAMESPACE)

        async def gone() -> bool:
            return not (await self.api.request("GET", path)).get("items")

        await self.api.request("DELETE", path)
        if not await comes_true(gone, HEALTHY_WITHIN_S):
            raise ClusterError("the tasks of an earlier run do not go")

    async def _apply(self, collection: str, body: Object) -> Object:
        """Make an object what it should be, whatever is there of an earlier run."""
        path, params = f"{collection}/{body['metadata']['name']}", {"fieldManager": NAMESPACE}
        try:
            return await self.api.request(
                "PATCH", path, body, params={**params, "force": "true"}, content_type=kube.APPLY
            )
        except (ApiError, ApiUnreachable) as error:
            raise ClusterError(f"{path}: {error}") from error

    async def mend(self) -> None:
        """Bring up again what a fault has broken for good; an empty cluster is furnished anew."""
        await self.parts("up")
        await self.furnish()


def custom(kind: str, name: str, spec: Object) -> Object:
    """A custom resource of ours."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


@asynccontextmanager
async def place(plan: Sequence[Trial], folder: Path, *, keep: bool) -> AsyncIterator[Place]:
    """The cluster of the proof, up and furnished; taken down at the end unless `keep`.

    Raises ClusterError if it cannot be had.
    """
    log = _fresh(folder)
    logging.getLogger("aiohttp").setLevel(logging.ERROR)
    try:
        await tools.run(log, "tools.images", "build")
        await tools.run(log, "tests.cluster", "up")
        cluster = tools.cluster()
        async with (
            await Kube.connect(Path(cluster.kubeconfig), cluster.context) as api,
            Ledger(cluster.host_ip, folder / "effects.txt") as ledger,
            FakeSGLang(script(shapes(plan, ledger.command)), host=cluster.host_ip) as fake,
        ):
            here = Place(cluster, api, ledger, fake, folder)
            await here.furnish()
            await here.clear()
            yield here
    finally:
        if not keep:
            await tools.run(log, "tests.cluster", "down")


def _fresh(folder: Path) -> Path:
    """An empty folder for what this run prints; the file of the tools' words."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    return folder / "tools.log"
