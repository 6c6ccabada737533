"""What all lanes of a level share: the API server, the outside ledger and the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ratchet.edges.kube import Kube
from sglang_fake import FakeSGLang

from tests.e2e.crds import install_crds
from tests.proof.ledger import Ledger
from tests.proof.node import ProcessNode
from tests.proof.settings import Settings
from tests.proof.shapes import Effect, Turn, script
from tests.proof.upstream import Upstream, upstream

Shapes = Callable[[Effect], Mapping[str, tuple[Turn, ...]]]
"""The conversations of a level, given how to leave a line in the ledger."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Outside of everything that is killed."""

    settings: Settings
    api: Kube
    upstream: Upstream
    ledger: Ledger
    fake: FakeSGLang
    node: ProcessNode | None
    """Where sandboxes are processes; None: they are pods."""

    def log(self, name: str) -> Path:
        """A file for what a process prints."""
        return self.settings.logs / f"{name}.log"


@asynccontextmanager
async def stage(
    settings: Settings, shapes: Shapes, *, processes: bool = True
) -> AsyncIterator[Stage]:
    """The API server's client, a new ledger, and a strict model that plays these shapes.

    Sandboxes are processes, or pods.
    """
    settings.logs.mkdir(parents=True, exist_ok=True)
    effects = settings.logs / "effects.txt"
    effects.unlink(missing_ok=True)
    cluster = settings.cluster
    await asyncio.to_thread(install_crds, cluster)
    server = await upstream(cluster)
    async with AsyncExitStack() as stack:
        client = await Kube.connect(Path(cluster.kubeconfig), cluster.context)
        api = await stack.enter_async_context(client)
        ledger = await stack.enter_async_context(Ledger(cluster.host_ip, effects))
        fake = await stack.enter_async_context(FakeSGLang(script(shapes(ledger.command))))
        node = None
        if processes:
            node = ProcessNode(cluster, settings.logs / "sandboxes")
            await stack.enter_async_context(node)
        yield Stage(settings, api, server, ledger, fake, node)


def share(total: int, parts: int) -> Sequence[int]:
    """A number in nearly equal parts."""
    return [total // parts + (index < total % parts) for index in range(parts)]
