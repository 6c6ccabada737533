"""Operator processes: the real supervisor, runner and edges, on connections that can be cut.

A process that is killed does nothing more, but what it had sent is still on its way. One that
stands still goes on later as if nothing had been.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from random import Random
from typing import Any

from ratchet.api import names
from ratchet.core import events as e
from ratchet.core.replies import FailureKind, ModelFailure, RawReply
from ratchet.core.state import State
from ratchet.edges.claim import KubeJournals
from ratchet.edges.kube import JSON, TIMEOUT_S, ApiError, ApiUnreachable, Params
from ratchet.fakes.clock import LoopClock
from ratchet.fakes.gate import OpenGate
from ratchet.fakes.model import FakeModel
from ratchet.ports import Claim, Journal, Journals, ModelRequest, TaskRef
from ratchet.shell.handlers import pod_seen, task_seen
from ratchet.shell.runner import Listener
from ratchet.shell.supervisor import Supervisor, World

from tests.property.apiserver import ApiServer, Object
from tests.property.network import Network, Serve, Way
from tests.property.pods import Pod
from tests.property.sandboxes import PretendedSandboxes
from tests.unit.core.world import no_rules

Listen = Callable[["Operator", e.Event, State], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all operators of a cluster share."""

    api: ApiServer
    network: Network
    model: FakeModel
    pods: dict[str, Pod]
    listen: Listen
    dice: Random


@dataclass(slots=True, eq=False)
class Operator:
    """One process. `held`: whether it has the Lease, as far as it knows."""

    name: str
    around: Surroundings
    held: bool = True
    dead: bool = False
    claiming: bool = False
    last_words_s: float = 0.0
    frozen_until: float = 0.0
    gate: OpenGate = field(default_factory=OpenGate)
    supervisor: Supervisor = field(init=False)
    ending: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        line = LineToApi(self)
        around = self.around
        world = World(
            journals=NotedJournals(KubeJournals(line, LoopClock().now), self),
            model=LineToModel(self),
            sandboxes=PretendedSandboxes(line, around.network, self, around.pods),
            clock=LoopClock(),
            gate=self.gate,
            check=lambda _tool, _arguments: None,
            rules=no_rules,
            random=lambda: 0.5,
            holder=self.name,
            listeners=self._listeners,
        )
        self.supervisor = Supervisor(world, self)

    def _listeners(self, _task: TaskRef) -> tuple[Listener, ...]:
        return (partial(self.around.listen, self),)

    # --- its life --------------------------------------------------------------------------------

    async def awake(self) -> None:
        """See network.Sender."""
        if self.dead:
            await asyncio.get_running_loop().create_future()
        while (rest := self.frozen_until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(rest)
            if self.dead:
                await asyncio.get_running_loop().create_future()

    def kill(self, last_words_s: float = 0.0) -> None:
        """It does nothing more."""
        self.dead = True
        self.last_words_s = last_words_s
        self.ending = asyncio.create_task(self.supervisor.stop())

    def stand_still(self, seconds: float) -> None:
        """It goes on after this time."""
        self.frozen_until = asyncio.get_running_loop().time() + seconds

    def lose_lease(self) -> None:
        """It learns that another process leads."""
        if self.held and not self.dead:
            self.held = False
            self.supervisor.leadership_changed()

    # --- what it sees ----------------------------------------------------------------------------

    def see(self, kind: str | None, path: str, found: Object) -> None:
        """A watch event reaches it, unless it is dead; one that stands still sees it afterwards."""
        loop = asyncio.get_running_loop()
        if self.dead:
            return
        if self.frozen_until > loop.time():
            loop.call_at(self.frozen_until, self.see, kind, path, found)
            return
        if f"/{names.TASK_PLURAL}/" in path:
            self.supervisor.task_seen(task_seen(kind, found))
        elif (pod := pod_seen(kind, found)) is not None:
            self.supervisor.pod_seen(pod)


class LineToApi:
    """The API server, at the other end of an operator's connection (kube.Api)."""

    def __init__(self, owner: Operator) -> None:
        self._owner = owner

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
        around, what = self._owner.around, f"{method} {path}"

        async def serve() -> dict[str, Any]:
            return around.api.request(method, path, body, params)

        return await around.network.request(
            self._owner,
            Way.READ if method == "GET" else Way.WRITE,
            what,
            lambda: serve,
            silence=lambda why: ApiUnreachable(f"{what}: {why}"),
            no=lambda status, reason: ApiError(status, reason, what),
        )


class LineToModel:
    """The model, at the other end of an operator's connection (ports.Model)."""

    def __init__(self, owner: Operator) -> None:
        self._owner = owner

    async def ask(self, request: ModelRequest) -> RawReply | ModelFailure:
        around = self._owner.around

        def connect() -> Serve[RawReply | ModelFailure]:
            return lambda: around.model.ask(request)

        try:
            return await around.network.request(
                self._owner, Way.MODEL, "the model", connect, silence=_Silence
            )
        except _Silence as silence:
            return ModelFailure(FailureKind.RETRY, f"the model: {silence}")


class _Silence(Exception):
    """No reply came."""


class NotedJournals:
    """Journals that say when their process is claiming (ports.Journals)."""

    def __init__(self, journals: Journals, owner: Operator) -> None:
        self._journals = journals
        self._owner = owner

    async def claim(
        self, task: TaskRef, holder: str, now: datetime
    ) -> tuple[Claim, Journal] | None:
        self._owner.claiming = True
        try:
            return await self._journals.claim(task, holder, now)
        finally:
            self._owner.claiming = False
