"""From a pod's creation to the first result of a tool, beside pods of other shapes.

The floor is a pod of the same shape: the same init container with the same copy, the same volumes,
two containers that sleep. What it takes is Kubernetes' own. All are waited for in the same way: by
looking often.
"""

from __future__ import annotations

import asyncio
import copy
import time
from dataclasses import dataclass
from typing import Any

from ratchet.build.files import sandbox_files
from ratchet.build.generation import Generation
from ratchet.build.pod import sandbox_pod
from ratchet.build.secret import sandbox_secret
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import Config
from ratchet.edges.kube import ApiError, Kube, core

from benchmarks.bare import NotMeasured
from benchmarks.sandbox.figures import Start
from tests.e2e.box import Boxes, shown

LOOK_EVERY_S = 0.02
READY_WITHIN_S = 120.0
SLEEP = ["sleep", "1000000"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Starts:
    """Where pods are started, and what a sandbox looks like."""

    api: Kube
    boxes: Boxes
    config: Config
    settings: SandboxSettings

    async def round(self, number: int) -> Start:
        """One start of each, one after the other; each pod is gone before the next begins."""
        ours = await self._ours()
        same = await self._same_shape(number)
        plain = await self._started(f"plain-{number}", self._plain(number))
        return Start(ours, same, plain)

    async def _ours(self) -> float:
        box = await self.boxes.make(self.config)
        begin = time.perf_counter()
        await box.ready(READY_WITHIN_S)
        receipt = await box.bash("true")
        ms = 1000 * (time.perf_counter() - begin)
        if receipt.outcome != "Ok":
            raise NotMeasured(f"bash in sandbox {box.pod}: {shown(receipt)}")
        await self.boxes.remove(box)
        await self._gone(box.pod)
        return ms

    async def _same_shape(self, number: int) -> float:
        namespace = self.boxes.kubectl.namespace
        shape = Generation(namespace, f"same-{number}", f"{number:08d}" + "0" * 28, 1)
        pod = sandbox_pod(shape, self.config.sandbox, self.settings)
        pod["metadata"].pop("ownerReferences")
        for container in pod["spec"]["containers"]:
            container["command"] = SLEEP
            container.pop("readinessProbe", None)
        secret = sandbox_secret(shape, "", certificate="", key="", token="")
        for part, kind in ((sandbox_files(shape, "", ()), "configmaps"), (secret, "secrets")):
            part["metadata"].pop("ownerReferences")
            await self.api.request("POST", core(kind, namespace), part)
        return await self._started(shape.name, pod)

    def _plain(self, number: int) -> Object:
        container = {
            "name": "shell",
            "image": self.config.sandbox.image,
            "imagePullPolicy": "IfNotPresent",
            "command": SLEEP,
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"plain-{number}"},
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
            },
        }

    async def _started(self, name: str, pod: Object) -> float:
        """Milliseconds from the creation of a pod until it is ready; it is removed again."""
        path = core("pods", self.boxes.kubectl.namespace)
        body = copy.deepcopy(pod)
        begin = time.perf_counter()
        await self.api.request("POST", path, body)
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                if _ready(await self.api.request("GET", f"{path}/{name}")):
                    break
                await asyncio.sleep(LOOK_EVERY_S)
        ms = 1000 * (time.perf_counter() - begin)
        await self.api.request("DELETE", f"{path}/{name}", {"gracePeriodSeconds": 1})
        await self._gone(name)
        return ms

    async def _gone(self, name: str) -> None:
        path = core("pods", self.boxes.kubectl.namespace, name)
        async with asyncio.timeout(READY_WITHIN_S):
            while True:
                try:
                    await self.api.request("GET", path)
                except ApiError as error:
                    if error.status == 404:
                        return
                    raise
                await asyncio.sleep(LOOK_EVERY_S)


def _ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
