"""What all lanes of a level share: the API server, the outside ledger and the model."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ratchet.edges.kube import Kube
from sglang_fake import FakeSGLang

from tests.proof.ledger import Ledger
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

    def log(self, name: str) -> Path:
        """A file for what a process prints."""
        return self.settings.logs / f"{name}.log"


@asynccontextmanager
async def stage(settings: Settings, shapes: Shapes) -> AsyncIterator[Stage]:
    """The API server's client, a new ledger, and a strict model that plays these shapes."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    effects = settings.logs / "effects.txt"
    effects.unlink(missing_ok=True)
    logging.getLogger("aiohttp").setLevel(logging.ERROR)
    cluster = settings.cluster
    server = await upstream(cluster)
    async with (
        await Kube.connect(Path(cluster.kubeconfig), cluster.context) as api,
        Ledger(cluster.host_ip, effects) as ledger,
        FakeSGLang(script(shapes(ledger.command))) as fake,
    ):
        yield Stage(settings, api, server, ledger, fake)


def share(total: int, parts: int) -> Sequence[int]:
    """A number in nearly equal parts."""
    return [total // parts + (index < total % parts) for index in range(parts)]
