"""kopf as our operator runs it, beside a test: with our settings, and the waits made short."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import kopf
from ratchet.api import names
from ratchet.shell.handlers import end_watches
from ratchet.shell.main import kopf_settings
from ratchet.shell.watching import Watch

from tests.kopf_contract.api_server import ApiServer
from tests.kopf_contract.api_shapes import Object
from tests.kopf_contract.bell import WITHIN_S, Bell

Register = Callable[[kopf.OperatorRegistry], None]

BACKOFFS_S = (0.02, 0.02, 0.02)


def quick_settings() -> kopf.OperatorSettings:
    """The settings of our operator, with waits that a test can wait for."""
    settings = kopf_settings()
    settings.networking.error_backoffs = BACKOFFS_S
    settings.watching.reconnect_backoff = 0.01
    settings.execution.default_backoff = 0.02
    return settings


@dataclass(frozen=True, slots=True)
class Told:
    """An event that kopf passed on."""

    kind: str | None
    name: str
    version: str
    body: Object


@dataclass(slots=True)
class Ears:
    """Handlers as ours, that note what they are told."""

    bell: Bell
    tasks: list[Told] = field(default_factory=list)
    pods: list[Told] = field(default_factory=list)

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Hang the handlers into a registry."""

        @kopf.on.event(names.GROUP, names.VERSION, names.TASK_PLURAL, registry=registry)
        async def task_event(event: Any, body: Any, **_: Any) -> None:
            self.note(self.tasks, event, body)

        @kopf.on.event("v1", "pods", registry=registry)
        async def pod_event(event: Any, body: Any, **_: Any) -> None:
            self.note(self.pods, event, body)

        kopf.on.cleanup(registry=registry)(end_watches)

    def note(self, into: list[Told], event: Any, body: Any) -> None:
        """Note an event."""
        meta = body["metadata"]
        into.append(Told(event["type"], meta["name"], meta["resourceVersion"], dict(body)))
        self.bell.ring()

    async def heard(self, name: str, kind: str | None = "", times: int = 1) -> None:
        """Wait until so many events of an object were told; of any kind unless one is named."""

        def holds() -> bool:
            found = [told for told in (*self.tasks, *self.pods) if told.name == name]
            return sum(kind in ("", told.kind) for told in found) >= times

        await self.bell.until(holds, lambda: f"told: {kinds(self.tasks)} {kinds(self.pods)}")


def kinds(told: list[Told]) -> list[tuple[str | None, str]]:
    """What was told, in short."""
    return [(one.kind, one.name) for one in told]


@dataclass(slots=True, repr=False)
class Operator:
    """kopf at work, from its start to its end. Use as `async with`."""

    server: ApiServer
    register: Register
    namespaces: tuple[str, ...] = ()
    settings: kopf.OperatorSettings = field(default_factory=quick_settings)
    tokens: Iterator[str] = field(default_factory=lambda: iter(["first"]))
    """What one login after the other brings."""
    expires: Callable[[], datetime | None] = lambda: None
    """When a login's credentials run out."""
    logins: int = 0
    ended: asyncio.Task[Exception | None] = field(init=False)
    """Done when kopf has ended by itself, with what it raised."""
    _watch: Watch = field(init=False)

    async def __aenter__(self) -> Operator:
        registry = kopf.OperatorRegistry()
        self.register(registry)
        kopf.on.login(registry=registry)(self._login)
        self._watch = Watch(registry, self.settings, self.namespaces)
        await self._watch.__aenter__()
        self.ended = asyncio.create_task(self._until_ended())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ended.cancel()
        await self._watch.__aexit__(None, None, None)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)

    async def end(self) -> Exception | None:
        """Wait until it ends by itself. What it raised is returned."""
        async with asyncio.timeout(WITHIN_S):
            return await asyncio.shield(self.ended)

    async def _until_ended(self) -> Exception | None:
        try:
            await self._watch.until_stopped()
        # Whatever kopf raises is what the test asks for.
        except Exception as error:  # noqa: BLE001
            return error
        return None

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        self.logins += 1
        return kopf.ConnectionInfo(
            server=self.server.url, token=next(self.tokens), expiration=self.expires()
        )
