"""A real sandbox without an operator: what a claim does with it, done by a test.

The task is an object that nobody works on: its sandbox belongs to it, so that Kubernetes removes
the pod when the namespace goes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ratchet.api import names
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.facts import CallOrder, Receipt, SandboxRef
from ratchet.core.keys import call_digest, call_key, canonical
from ratchet.edges.kube import Kube
from ratchet.edges.sandboxes import KubeSandbox, KubeSandboxes
from ratchet.ports import SandboxAway, SandboxGone, SandboxPending, SandboxReady, TaskRef

from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.kubectl import Kubectl

READY_WITHIN_S = 120.0
LOOK_EVERY_S = 0.05

_Seen = TypeVar("_Seen", SandboxReady, SandboxPending, SandboxGone)
_MODEL = ModelConfig(endpoint="none", url="http://127.0.0.1:9/v1", model="none")


def config(**sandbox: Any) -> Config:
    """A task's configuration whose sandbox has these fields; the demo shell where none is named."""
    shape = {"image": images.SHELL, **sandbox}
    return Config(goal="Try the sandbox.", model=_MODEL, sandbox=SandboxConfig(**shape))


@dataclass(slots=True)
class Box:
    """The sandbox of one task; its calls are numbered."""

    kubectl: Kubectl
    task: TaskRef
    config: Config
    sandbox: KubeSandbox
    ref: SandboxRef = field(default_factory=SandboxRef)
    _calls: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def pod(self) -> str:
        return names.sandbox_name(self.task.name, self.task.uid, self.ref.generation)

    async def ready(self, within_s: float = READY_WITHIN_S) -> SandboxReady:
        """Have it made, as often as needed, and wait until it answers."""
        seen = await self.until(SandboxReady, within_s)
        self.ref = seen.sandbox
        return seen

    async def until(self, kind: type[_Seen], within_s: float = READY_WITHIN_S) -> _Seen:
        """Look until the sandbox is seen like this. AssertionError when that takes too long."""
        ends = time.monotonic() + within_s
        last: object = None
        while time.monotonic() < ends:
            try:
                last = await self.sandbox.prepare(self.config, self.ref)
            except SandboxAway as away:
                last = away
            if isinstance(last, kind):
                return last
            await asyncio.sleep(LOOK_EVERY_S)
        raise AssertionError(f"{self.pod} was not {kind.__name__} in {within_s:g} s: {last!r}")

    def order(self, tool: str, /, **arguments: Any) -> CallOrder:
        """A call with a key of its own."""
        text = canonical(arguments)
        key = call_key(self.task.uid, next(self._calls), 0)
        return CallOrder(key, tool, text, call_digest(tool, text))

    async def use(self, tool: str, /, **arguments: Any) -> Receipt:
        """Run a tool and wait for its end."""
        return await self.sandbox.run(self.order(tool, **arguments))

    async def bash(self, command: str, **more: Any) -> Receipt:
        """Run a command and wait for its end."""
        return await self.use("bash", command=command, **more)

    async def object(self) -> dict[str, Any]:
        """The pod as it is now."""
        return await self.kubectl.get("pod", self.pod)


@dataclass(slots=True)
class Boxes:
    """Where sandboxes come from: the operator's own edge, with the credentials of a kubeconfig."""

    kubectl: Kubectl
    home: KubeSandboxes
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def make(self, config: Config, *, epoch: int = 1) -> Box:
        """A sandbox that has not been made yet, of a task of its own."""
        name = f"box-{next(self._numbers)}"
        task = {
            "apiVersion": names.API_VERSION,
            "kind": names.TASK_KIND,
            "metadata": {"name": name},
            "spec": {"goal": config.goal},
        }
        await self.kubectl.apply(task)
        uid = (await self.kubectl.get("agenttask", name))["metadata"]["uid"]
        ref = TaskRef(self.kubectl.namespace, name, uid)
        return Box(self.kubectl, ref, config, self.home.of(ref, epoch))

    def again(self, box: Box, epoch: int) -> Box:
        """The same sandbox in the hands of a later owner."""
        return replace(box, sandbox=self.home.of(box.task, epoch))

    async def remove(self, box: Box) -> None:
        """Delete the task, and its pod at once."""
        await self.kubectl.run("delete", "agenttask", box.task.name, "--wait=false")
        await box.sandbox.remove()


@asynccontextmanager
async def open_boxes(
    cluster: Cluster, namespace: str, settings: SandboxSettings | None = None
) -> AsyncIterator[Boxes]:
    """Sandboxes in a namespace that is there; they go with it."""
    settings = settings or SandboxSettings(images.SERVER, images.RUNNER, namespace)
    async with await Kube.connect(Path(cluster.kubeconfig), cluster.context) as api:
        home = KubeSandboxes(api, settings)
        try:
            yield Boxes(Kubectl(cluster.kubeconfig, cluster.path, namespace), home)
        finally:
            await home.close()


def shown(receipt: Receipt) -> str:
    """A receipt as the message of an assertion."""
    return json.dumps({"outcome": receipt.outcome, "content": receipt.content[-2000:]}, indent=2)
