"""kopf as our operator runs it, beside a test: with our settings, and the waits made short."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import kopf
from ratchet.api import names
from ratchet.shell.main import kopf_settings

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
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Hang the handlers into a registry."""
        self.register_tasks(registry)

        @kopf.on.event("v1", "pods", registry=registry)
        async def pod_event(event: Any, body: Any, **_: Any) -> None:
            self.note(self.pods, event, body)

    def register_tasks(self, registry: kopf.OperatorRegistry) -> None:
        """Hang in the one for tasks alone: with no other watch kopf ends without its five seconds."""

        @kopf.on.event(names.GROUP, names.VERSION, names.TASK_PLURAL, registry=registry)
        async def task_event(event: Any, body: Any, **_: Any) -> None:
            self.note(self.tasks, event, body)

    def note(self, into: list[Told], event: Any, body: Any) -> None:
        """Note an event, from the operator's thread."""
        meta = body["metadata"]
        told = Told(event["type"], meta["name"], meta["resourceVersion"], dict(body))
        self._loop.call_soon_threadsafe(self._add, into, told)

    def _add(self, into: list[Told], told: Told) -> None:
        into.append(told)
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


@dataclass(slots=True)
class Operator:
    """One run of `kopf.operator` in a thread and an event loop of its own. Use as `async with`.

    Of its own, because kopf ends all tasks of its event loop that were begun after it.
    """

    server: ApiServer
    register: Register
    namespaces: tuple[str, ...] = ()
    settings: kopf.OperatorSettings = field(default_factory=quick_settings)
    tokens: Iterator[str] = field(default_factory=lambda: iter(["first"]))
    """What one login after the other brings."""
    logins: int = 0
    ended: asyncio.Future[BaseException | None] = field(init=False)
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _thread: threading.Thread | None = None

    async def __aenter__(self) -> Operator:
        home = asyncio.get_running_loop()
        self.ended, begun = home.create_future(), home.create_future()
        self._thread = threading.Thread(target=self._main, args=(home, begun))
        self._thread.start()
        self._loop, self._stop = await begun
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def end(self) -> BaseException | None:
        """Wait until it ends by itself. What it raised is returned."""
        async with asyncio.timeout(WITHIN_S):
            return await asyncio.shield(self.ended)

    async def stop(self) -> BaseException | None:
        """Stop it as a signal does. What it raised is returned."""
        assert self._loop is not None and self._stop is not None and self._thread is not None
        if not self.ended.done():
            self._loop.call_soon_threadsafe(self._stop.set)
        raised = await self.end()
        self._thread.join()
        return raised

    def _main(self, home: asyncio.AbstractEventLoop, begun: asyncio.Future[Any]) -> None:
        raised: BaseException | None = None
        try:
            asyncio.run(self._run(home, begun))
        # Whatever kopf raises is what the test asks for.
        except BaseException as error:  # noqa: BLE001
            raised = error
        home.call_soon_threadsafe(self._note_end, raised)

    def _note_end(self, raised: BaseException | None) -> None:
        self.ended.set_result(raised)
        self.server.bell.ring()

    async def _run(self, home: asyncio.AbstractEventLoop, begun: asyncio.Future[Any]) -> None:
        stop = asyncio.Event()
        home.call_soon_threadsafe(begun.set_result, (asyncio.get_running_loop(), stop))
        registry = kopf.OperatorRegistry()
        self.register(registry)

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            self.logins += 1
            return kopf.ConnectionInfo(server=self.server.url, token=next(self.tokens))

        @kopf.on.cleanup(registry=registry)
        async def cleanup(**_: Any) -> None:
            stop.set()  # kopf would wait 5 s for the task of its own that waits for this

        await kopf.operator(
            registry=registry,
            settings=self.settings,
            standalone=True,
            clusterwide=not self.namespaces,
            namespaces=self.namespaces,
            stop_flag=stop,
        )
