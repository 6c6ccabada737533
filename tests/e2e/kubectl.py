"""kubectl as a user runs it, and waiting for what it shows."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml


class Refused(Exception):
    """kubectl ended with an error; the text is what it printed."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl in one namespace of one cluster."""

    kubeconfig: str
    path: str
    namespace: str

    async def run(self, *arguments: str, stdin: str = "") -> str:
        """Run it and return what it prints. Raises Refused."""
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            "--kubeconfig",
            self.kubeconfig,
            "--namespace",
            self.namespace,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PATH": f"{self.path}:{os.environ['PATH']}"},
        )
        out, err = await process.communicate(stdin.encode())
        if process.returncode:
            raise Refused(err.decode())
        return out.decode()

    async def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects, as `kubectl apply -f`."""
        await self.run("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object. Raises Refused if it is not there."""
        found: dict[str, Any] = json.loads(await self.run("get", kind, name, "-o", "json"))
        return found

    async def names(self, kind: str, selector: str = "") -> list[str]:
        """Names of all objects of a kind."""
        more = ("-l", selector) if selector else ()
        listed = json.loads(await self.run("get", kind, *more, "-o", "json"))
        return [item["metadata"]["name"] for item in listed["items"]]

    async def wait_until(
        self,
        kind: str,
        name: str,
        holds: Callable[[dict[str, Any]], bool],
        within_s: float = 120.0,
    ) -> dict[str, Any]:
        """Poll an object until something holds of it; the last state is in the error if it never does."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = await self.get(kind, name)
                    if holds(found):
                        return found
                    await asyncio.sleep(0.2)
        except TimeoutError:
            status = json.dumps(found.get("status"), indent=2)
            raise AssertionError(f"{kind} {name} after {within_s:g} s: {status}") from None

    async def wait_gone(self, kind: str, selector: str = "", within_s: float = 30.0) -> float:
        """Seconds until no object of this kind is left."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.timeout(within_s):
            while await self.names(kind, selector):  # noqa: ASYNC110 - the API server sets no event
                await asyncio.sleep(0.1)
        return loop.time() - begin


def finished(task: dict[str, Any]) -> bool:
    """Whether a task has ended, by its conditions."""
    return condition(task, "Finished") == "True"


def condition(task: dict[str, Any], kind: str) -> str:
    """Status of a condition; empty if there is none."""
    found = (c for c in task.get("status", {}).get("conditions", ()) if c["type"] == kind)
    return str(next((c["status"] for c in found), ""))
