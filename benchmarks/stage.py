"""A namespace of its own on the cluster, and what is read there while a task runs."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from ratchet.api import names

from benchmarks import writes
from benchmarks.bare import NotMeasured, get
from benchmarks.writes import Write
from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.kubectl import Kubectl, Refused
from tests.e2e.operator_process import REPO
from tests.e2e.scene import Scene as Tasks

POLL_S = 0.5
"""Between two looks at a task: seldom, for each look is work for the machine that is measured."""
BEGIN_WITHIN_S = 180.0

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """Accepted writes so far, and when they were read (monotonic seconds)."""

    accepted: Counter[Write]
    at: float


class LeaseWatch:
    """Notes each write of a Lease in our namespace: the metrics cannot tell them from others."""

    def __init__(self, api: aiohttp.ClientSession, namespace: str) -> None:
        self._api = api
        self._path = f"apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._writes: list[float] = []
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._api.get(self._path, params={"watch": "1"}, timeout=timeout) as answer:
            async for _ in answer.content:
                self._writes.append(time.monotonic())

    def between(self, before: Reading, after: Reading) -> int:
        """How often the Lease was written between two readings. Raises NotMeasured."""
        if self._watching.done():
            raise NotMeasured(f"the watch of {self._path} ended: run the benchmark again")
        return sum(before.at < at <= after.at for at in self._writes)

    async def close(self) -> None:
        """End the watch."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Stage:
    """The namespace of one benchmark."""

    tasks: Tasks
    api: aiohttp.ClientSession
    leases: LeaseWatch

    @property
    def kubectl(self) -> Kubectl:
        return self.tasks.kubectl

    @property
    def namespace(self) -> str:
        return self.kubectl.namespace

    async def task(self, name: str) -> Object:
        """The task as it is now."""
        base = f"apis/{names.API_VERSION}/namespaces/{self.namespace}"
        found: Object = json.loads(await get(self.api, f"{base}/{names.TASK_PLURAL}/{name}"))
        return found

    async def until_asking(self, name: str, turn: int, within_s: float) -> Object:
        """Wait until the sandbox is bound, turns before this one are complete, and it is asked."""
        found: Object = {}
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            found = await self.task(name)
            status = found.get("status", {})
            if any(c["type"] == "Finished" for c in status.get("conditions", ())):
                break
            asked = status.get("asking", {}).get("turn") == turn
            bound = bool(status.get("sandbox", {}).get("ledger"))
            if asked and bound and await self._complete(found, turn - 1):
                return found
            await asyncio.sleep(POLL_S)
        status = json.dumps(found.get("status"), indent=2)
        raise NotMeasured(f"task {name} did not get to turn {turn} in {within_s:.0f} s: {status}")

    async def _complete(self, task: Object, number: int) -> bool:
        if number == 0:
            return True
        return bool((await self.turn(task, number)).get("status", {}).get("results"))

    async def turn(self, task: Object, number: int) -> Object:
        """A stored turn of a task."""
        metadata = task["metadata"]
        return await self.kubectl.get(
            "agentturn", names.turn_name(metadata["name"], metadata["uid"], number)
        )

    async def sandbox_part(self, kind: str, task: Object) -> Object:
        """The pod of a task's sandbox, or its secret."""
        metadata, generation = task["metadata"], task["status"]["sandbox"]["generation"]
        name = names.sandbox_name(metadata["name"], metadata["uid"], generation)
        return await self.kubectl.get(kind, name)

    async def reading(self) -> Reading:
        """The API server's count of accepted writes."""
        text = await get(self.api, "metrics")
        at = time.monotonic()
        return Reading(writes.accepted(text), at)


@asynccontextmanager
async def set_up(cluster: Cluster, api: aiohttp.ClientSession) -> AsyncIterator[Stage]:
    """A fresh namespace with the definitions of the custom resources; deleted at the end."""
    namespace = f"ratchet-bench-{secrets.token_hex(4)}"
    kubectl = Kubectl(cluster.kubeconfig, cluster.path, namespace)
    try:
        await kubectl.run("apply", "--server-side", "--force-conflicts", "-f", str(REPO / "crds"))
        await kubectl.run("wait", "--for=condition=Established", "-f", str(REPO / "crds"))
        await kubectl.run("create", "namespace", namespace)
    except Refused as refused:
        raise NotMeasured(str(refused)) from refused
    leases = LeaseWatch(api, namespace)
    try:
        yield Stage(Tasks(kubectl, images.SHELL), api, leases)
    finally:
        await leases.close()
        await kubectl.run("delete", "namespace", namespace, "--timeout=60s")
