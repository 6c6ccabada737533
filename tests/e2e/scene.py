"""What most tests need: a namespace with an operator, a model that plays a script, and kubectl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.e2e.kubectl import Kubectl, Refused

API = "ratchet.run/v1alpha1"


@dataclass(frozen=True, slots=True)
class Scene:
    """A namespace in which tasks can run."""

    kubectl: Kubectl
    shell_image: str

    @property
    def namespace(self) -> str:
        return self.kubectl.namespace

    async def defaults(self, model_url: str, **endpoint: Any) -> None:
        """The ModelEndpoint and the SandboxClass that tasks use when they name none."""
        await self.kubectl.apply(
            self.object(
                "ModelEndpoint", "default", url=model_url, model="fake", engine="SGLang", **endpoint
            ),
            self.object("SandboxClass", "default", image=self.shell_image),
        )

    def object(self, kind: str, name: str, **spec: Any) -> dict[str, Any]:
        """A custom resource of ours."""
        return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}

    async def start(self, name: str, **spec: Any) -> None:
        """Apply a task."""
        spec.setdefault("goal", f"Do what the script of {name} says.")
        await self.kubectl.apply(self.object("AgentTask", name, **spec))

    async def ended(self, name: str, within_s: float = 120.0) -> dict[str, Any]:
        """Wait for the end of a task as a user would, and return it."""
        try:
            await self.kubectl.run(
                "wait", "--for=condition=Finished", f"agenttask/{name}", f"--timeout={within_s:g}s"
            )
        except Refused as refused:
            status = (await self.kubectl.get("agenttask", name)).get("status")
            raise AssertionError(f"{refused}: {json.dumps(status, indent=2)}") from refused
        return await self.kubectl.get("agenttask", name)

    async def turns(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        """The journal of a task, in order, checked for holes."""
        selector = f"ratchet.run/task-uid={task['metadata']['uid']}"
        out = await self.kubectl.run("get", "agentturns", "-l", selector, "-o", "json")
        records = sorted(json.loads(out)["items"], key=lambda item: item["spec"]["number"])
        assert [r["spec"]["number"] for r in records] == list(range(len(records)))
        return records
