"""A pod that this node plays: its object in the API server, from its first sight to its end."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from ratchet.api import names
from ratchet.build.pod import PREPARE
from ratchet.edges.kube import MERGE_PATCH, ApiError, ApiUnreachable, Kube, core

from tests.proof.node import addresses, status
from tests.proof.node.folders import Folders

Object = dict[str, Any]
FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 0.5
"""How often a Secret is looked for that is not there yet."""
RETRY_S = 0.3

Front = Callable[[str, str, str], Awaitable[str]]
"""Puts something in front of a server: (address, certificate, key) to the address to report."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the pods of a node share."""

    api: Kube
    session: aiohttp.ClientSession
    root: Path
    """Folder of the pods' volumes; other users may pass through it."""
    logs: Path
    server_python: str
    runner_python: str
    package: Path
    """Folder that holds the package `ratchet_sandbox`, readable for all."""
    bundle: Path
    separate_users: bool
    """Each sandbox's commands run as a user of their own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    front: Front | None = None


class Pod(ABC):
    """One sandbox pod. What runs in it is up to the classes below this one."""

    def __init__(self, machine: Machine, pod: Object) -> None:
        metadata = pod["metadata"]
        self.name: str = metadata["name"]
        self.namespace: str = metadata["namespace"]
        self.uid: str = metadata["uid"]
        self.task_uid: str = metadata["labels"][names.LABEL_TASK_UID]
        self.task: str = next(o["name"] for o in metadata["ownerReferences"])
        self.generation = int(metadata["labels"][names.LABEL_GENERATION])
        self.address = addresses.free_address()
        """Where the server listens."""
        self.reported = self.address
        """The address in the pod's status: the server's, or that of what is in front of it."""
        self.lost = False
        """Whether the pod was taken away by `lose_pod`."""
        self.failures: list[BaseException] = []
        """What went wrong in the node's own work on this pod."""
        self._machine = machine
        self._created = datetime.fromisoformat(metadata["creationTimestamp"])
        self._prepared: datetime | None = None
        every = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
        self._images: dict[str, str] = {c["name"]: c["image"] for c in every}
        self._env = {c["name"]: _literals(c.get("env")) for c in every}
        self._folders = Folders(machine.root / self.uid)
        self._changed = asyncio.Event()
        self._moved = asyncio.Condition()
        self._is_ready = False
        self._living: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the pod was last reported as ready."""
        return self._is_ready

    async def wait_ready(self, within_s: float = 30.0) -> None:
        """Wait until the pod is reported as ready."""
        await self._wait(lambda: self._is_ready, within_s)

    async def lose_pod(self, *, vanish: bool = False) -> None:
        """Kill its processes, delete all volumes, and let the pod fail as if it was evicted.

        `vanish`: its object is deleted too, as when a dead node is removed.
        """
        self.lost = True
        await self._tear_down(grace_s=0)
        if vanish:
            await self._delete_object()
            return
        message = "The node was low on resource: memory."
        conditions = self._status(running=False)["conditions"]
        failed = status.evicted(message) | {"conditions": conditions}
        while not await self._patch(failed):  # noqa: ASYNC110 - the API server sets no event
            await asyncio.sleep(RETRY_S)

    # --- what is in it ---

    @abstractmethod
    async def _run(self) -> None:
        """Run the containers, until cancelled. Sets `_changed` whenever `_seen` has changed."""

    @abstractmethod
    async def _stop(self, grace_s: float) -> None:
        """End all that `_run` has started."""

    @abstractmethod
    def _seen(self) -> list[status.Seen]:
        """The containers as they are."""

    @abstractmethod
    def set_failpoint(self, *, server: str = "", runner: str = "") -> None:
        """Failpoints for the next start of each process (see `ratchet_sandbox.failpoints`)."""

    @abstractmethod
    def struck(self) -> list[str]:
        """Failpoints that have struck so far, as ``<point> <fault>``, the server's first."""

    @abstractmethod
    def tail(self, lines: int = 20) -> str:
        """The ends of its logs, for a failing test."""

    # --- for the node ---

    def begin(self) -> None:
        """Start to live."""
        self._living = asyncio.create_task(self._live())

    async def end(self, grace_s: float, *, delete: bool) -> None:
        """End the processes, remove the volumes, and let the API server forget the pod."""
        await self._tear_down(grace_s)
        if delete:
            await self._delete_object()

    def observe(self, pod: Object) -> None:
        """Write the status again if somebody else (the node controller) has changed it."""
        conditions = (pod.get("status") or {}).get("conditions") or ()
        shown = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if self._is_ready and not shown:
            self._changed.set()

    async def _live(self) -> None:
        try:
            await self._set_up()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._report())
                group.create_task(self._run())
        except Exception as error:  # of any kind: the node shows it at its end, and the test fails
            self.failures.append(error)
            raise

    async def _set_up(self) -> None:
        """What comes before the containers. The operator makes the Secret last."""
        secret = await self._object("secrets")
        await self._prepare(secret)
        if self._machine.front is not None:
            certificate, key = self._folders.secret / "tls.crt", self._folders.secret / "tls.key"
            self.reported = await self._machine.front(self.address, str(certificate), str(key))
        self._prepared = datetime.now(UTC)

    async def _prepare(self, secret: Object) -> None:
        """Make the folders; more is done where there is a workspace."""
        await asyncio.to_thread(self._folders.make, secret, None)

    async def _tear_down(self, grace_s: float) -> None:
        if self._living is not None:
            self._living.cancel()
            await asyncio.gather(self._living, return_exceptions=True)
        await self._stop(grace_s)
        await asyncio.to_thread(self._folders.remove)
        await self._note(ready=False)

    # --- the pod's object ---

    async def _object(self, plural: str) -> Object:
        """A Secret or ConfigMap of this pod, as soon as it is there."""
        pause = FIRST_LOOK_S
        while True:
            with contextlib.suppress(ApiError, ApiUnreachable):
                return await self._machine.api.request(
                    "GET", core(plural, self.namespace, self.name)
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_LOOK_S)

    async def _report(self) -> None:
        """Write the status whenever it has changed, until the API server has it."""
        while True:
            self._changed.clear()
            ready = all(container.ready for container in self._seen())
            if await self._patch(self._status()):
                await self._note(ready=ready)
                await self._changed.wait()
            else:
                await asyncio.sleep(RETRY_S)

    def _status(self, *, running: bool = True) -> Object:
        prepared = self._prepared or datetime.now(UTC)
        made_by = f"processes://{self.uid}"
        init = status.Seen(PREPARE, self._images[PREPARE], made_by, prepared, ready=True)
        seen = self._seen() if running else [status.gone(one) for one in self._seen()]
        return status.running(self.reported, self._created, prepared, init, seen)

    async def _patch(self, found: Object) -> bool:
        """Whether the status was written, or nobody will ever want it again."""
        path = core("pods", self.namespace, self.name, "status")
        body = {"metadata": {"uid": self.uid}, "status": found}
        try:
            await self._machine.api.request("PATCH", path, body, content_type=MERGE_PATCH)
        except ApiError as error:
            if error.status in (404, 409):  # gone, or another pod of this name
                return True
            if error.status < 500 and error.status != 429:
                raise
            return False
        except ApiUnreachable:
            return False
        return True

    async def _delete_object(self) -> None:
        """Until the API server has forgotten this pod."""
        path = core("pods", self.namespace, self.name)
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while True:
            try:
                await self._machine.api.request("DELETE", path, body)
                return
            except ApiError as error:
                if error.status in (404, 409):
                    return
            except ApiUnreachable:
                pass
            await asyncio.sleep(RETRY_S)

    async def _note(self, *, ready: bool) -> None:
        async with self._moved:
            self._is_ready = ready
            self._moved.notify_all()

    async def _wait(self, holds: Callable[[], bool], within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s), self._moved:
                await self._moved.wait_for(holds)
        except TimeoutError:
            raise AssertionError(f"sandbox {self.name}: {self.tail()}") from None


def _literals(env: list[Object] | None) -> dict[str, str]:
    return {item["name"]: item["value"] for item in env or () if "value" in item}
