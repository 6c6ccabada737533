"""An API server with tasks and pods, and what the handlers of an operator there were told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from ratchet.api import names

from tests.e2e.conftest import api, cluster, namespace
from tests.kopf_contract.api_server import ApiServer
from tests.kopf_contract.api_shapes import Resource
from tests.kopf_contract.operators import Ears, Operator

__all__ = ["api", "cluster", "namespace"]

TASKS = names.TASK_PLURAL
SANDBOX = {names.LABEL_COMPONENT: names.COMPONENT_SANDBOX}

TASK = Resource(names.GROUP, names.VERSION, TASKS, names.TASK_KIND)
POD = Resource("", "v1", "pods", "Pod")
OTHERS = [
    Resource("", "v1", "namespaces", "Namespace", namespaced=False),
    Resource("", "v1", "events", "Event"),
    Resource(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
    ),
]


@dataclass(slots=True)
class Scene:
    """A server, and the ears of the operators that are started in it."""

    server: ApiServer
    ears: Ears

    def operator(self, **options: Any) -> Operator:
        """An operator that tells `ears`, to be started by `async with`."""
        return Operator(self.server, **{"register": self.ears.register, **options})

    def create_pod(self, name: str, **metadata: Any) -> None:
        """Create a sandbox's pod."""
        self.server.create("pods", name, metadata={"labels": SANDBOX, **metadata})

    async def watching(self, plural: str = TASKS, times: int = 1) -> None:
        """Wait until so many watches of a resource are open."""
        await self.server.bell.until(
            lambda: len(self.server.watches(plural)) == times,
            lambda: f"asked: {[(a.verb, a.plural) for a in self.server.asked]}",
        )


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """A server that listens on the loopback address."""
    # kopf leaves tasks with errors that nobody asks for. asyncio would log each when it is collected,
    # which breaks a parser that is at work in that moment (Python 3.11, gh-106905).
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with ApiServer([TASK, POD, *OTHERS]) as found:
        yield found


@pytest.fixture
async def scene(server: ApiServer) -> Scene:
    """The server, with nobody in it yet."""
    return Scene(server, Ears(server.bell))
