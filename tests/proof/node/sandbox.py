"""One sandbox pod on the process node: its server and its runner as processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from ratchet.api import names
from ratchet.build.pod import PREPARE, SERVER, SHELL
from ratchet.edges.kube import MERGE_PATCH, ApiError, ApiUnreachable, Kube, core
from ratchet_sandbox import protocol

from tests.proof.node import addresses, leftovers, status
from tests.proof.node.container import Container, Program
from tests.proof.node.folders import Folders

Object = dict[str, Any]
PROBE_EVERY_S = 1.0
"""As the pod's readinessProbe says."""
FIRST_PROBES_EVERY_S = 0.05
"""Until it is ready; the kubelet too probes at once after a start."""
PROBE_TIMEOUT_S = 3.0
PROBE_FAILURES = 3
LOOK_EVERY_S = 0.02
RETRY_S = 0.3

Front = Callable[[str, str, str], Awaitable[str]]
"""Puts something in front of a server: (address, certificate, key) to the address to report."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the sandboxes of a node share."""

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


class RunningSandbox:
    """A sandbox pod. Made by ProcessNode; ask it by `ProcessNode.sandbox` and `wait_for`.

    All `kill_*` and `stop_*` work by pid and return that pid. After a kill the process is started
    again at once, as by a kubelet, with the same ledger, address and workspace.
    """

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
        self._user = addresses.user_of(self.address) if machine.separate_users else None
        self._port = addresses.free_runner_port()
        self._created = datetime.fromisoformat(metadata["creationTimestamp"])
        self._prepared: datetime | None = None
        self._images = {c["name"]: c["image"] for c in _containers(pod)}
        self._env = {c["name"]: _literals(c.get("env")) for c in _containers(pod)}
        self._folders = Folders(machine.root / self.uid)
        self._changed = asyncio.Event()
        self._moved = asyncio.Condition()
        self._is_ready = False
        self._living: asyncio.Task[None] | None = None
        self.server = self._container(SERVER, self._server_program())
        self.runner = self._container(SHELL, self._runner_program())

    # --- for tests ---

    @property
    def server_pid(self) -> int:
        """Raises ProcessLookupError while the server does not run."""
        return self.server.pid

    @property
    def runner_pid(self) -> int:
        """Raises ProcessLookupError while the runner does not run."""
        return self.runner.pid

    @property
    def ready(self) -> bool:
        """Whether the pod was last reported as ready."""
        return self._is_ready

    @property
    def workspace(self) -> Path:
        """The folder that is /workspace in a pod."""
        return self._folders.workspace

    def kill_server(self) -> int:
        """SIGKILL the server."""
        return self.server.signal(signal.SIGKILL)

    def stop_server(self) -> int:
        """SIGSTOP the server: it stands still, its connections stay open."""
        return self.server.signal(signal.SIGSTOP)

    def continue_server(self) -> int:
        """SIGCONT the server."""
        return self.server.signal(signal.SIGCONT)

    def kill_runner(self) -> int:
        """SIGKILL the runner; all that it has started dies with it."""
        return self.runner.signal(signal.SIGKILL)

    def stop_runner(self) -> int:
        """SIGSTOP the runner alone; its commands go on."""
        return self.runner.signal(signal.SIGSTOP)

    def continue_runner(self) -> int:
        """SIGCONT the runner."""
        return self.runner.signal(signal.SIGCONT)

    def set_failpoint(self, *, server: str = "", runner: str = "") -> None:
        """Failpoints for the next start of each process (see `ratchet_sandbox.failpoints`)."""
        self.server.failpoint, self.runner.failpoint = server, runner

    def struck(self) -> list[str]:
        """Failpoints that have struck so far, as ``<point> <fault>``, the server's first."""
        return self.server.struck() + self.runner.struck()

    async def wait_ready(self, within_s: float = 30.0) -> None:
        """Wait until the pod is reported as ready."""
        await self._wait(lambda: self._is_ready, within_s)

    async def wait_restarted(self, container: str, beyond: int = 0, within_s: float = 30.0) -> None:
        """Wait until `server` or `runner` has been started again more than `beyond` times."""
        one = self.server if container == "server" else self.runner
        await self._wait(lambda: one.restarts > beyond and one.running, within_s)

    async def lose_pod(self, *, vanish: bool = False) -> None:
        """Kill both processes, delete all volumes, and let the pod fail as if it was evicted.

        `vanish`: its object is deleted too, as when a dead node is removed.
        """
        self.lost = True
        await self._tear_down(grace_s=0)
        if vanish:
            await self._delete_object()
            return
        message = "The node was low on resource: memory."
        await self._patch(status.evicted(message) | {"conditions": self._lost_conditions()})

    # --- for the node ---

    def begin(self) -> None:
        """Start to live."""
        self._living = asyncio.create_task(self._live())

    async def end(self, grace_s: float, *, delete: bool) -> None:
        """End the processes, remove the volumes, and let the API server forget the pod."""
        await self._tear_down(grace_s)
        if delete:
            await self._delete_object()

    async def _tear_down(self, grace_s: float) -> None:
        if self._living is not None:
            self._living.cancel()
            await asyncio.gather(self._living, return_exceptions=True)
        await asyncio.gather(self.server.end(grace_s), self.runner.end(grace_s))
        await asyncio.to_thread(self._clean)
        await self._note(ready=False)

    def _clean(self) -> None:
        leftovers.end_all(self._user, self._folders.home)
        self._folders.remove()

    async def _live(self) -> None:
        try:
            await self._set_up()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._report())
                group.create_task(self.server.keep(lambda: None, ready_at_once=False))
                group.create_task(self.runner.keep(self._end_commands, ready_at_once=True))
                group.create_task(self._probe())
        except Exception as error:  # of any kind: the node shows it at its end, and the test fails
            self.failures.append(error)
            raise

    async def _set_up(self) -> None:
        """What comes before the containers: the Secret is made last, so it is waited for first."""
        machine = self._machine
        secret = await self._object("secrets")
        files = await self._object("configmaps")
        await asyncio.to_thread(self._folders.make, secret, self._user)
        arguments = (files, machine.bundle, self.task_uid, self._user)
        await asyncio.to_thread(self._folders.fill, *arguments)
        if machine.front is not None:
            certificate, key = self._folders.secret / "tls.crt", self._folders.secret / "tls.key"
            self.reported = await machine.front(self.address, str(certificate), str(key))
        self._prepared = datetime.now(UTC)

    async def _object(self, plural: str) -> Object:
        """A Secret or ConfigMap of this pod, as soon as it is there."""
        while True:
            with contextlib.suppress(ApiError, ApiUnreachable):
                return await self._machine.api.request(
                    "GET", core(plural, self.namespace, self.name)
                )
            await asyncio.sleep(LOOK_EVERY_S)

    def _end_commands(self) -> None:
        leftovers.end_all(self._user, self._folders.home)

    async def _probe(self) -> None:
        """The readiness probe of the server's container, asked at the server itself."""
        failures = 0
        while True:
            good = self.server.running and await self._healthy()
            failures = 0 if good else failures + 1
            if good != self.server.ready and (good or failures >= PROBE_FAILURES):
                self.server.ready = good
                self._changed.set()
            await asyncio.sleep(PROBE_EVERY_S if self.server.ready else FIRST_PROBES_EVERY_S)

    async def _healthy(self) -> bool:
        url = f"https://{self.address}:{protocol.HTTPS_PORT}/v1/health"
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        try:
            async with self._machine.session.get(url, ssl=_ANY, timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    # --- the pod's object ---

    async def _report(self) -> None:
        """Write the status whenever it has changed, until the API server has it."""
        while True:
            self._changed.clear()
            found = self._status()
            if await self._patch(found):
                await self._note(ready=self.server.ready and self.runner.ready)
                await self._changed.wait()
            else:
                await asyncio.sleep(RETRY_S)

    def observe(self, pod: Object) -> None:
        """Write the status again if somebody else (the node controller) has changed it."""
        conditions = (pod.get("status") or {}).get("conditions") or ()
        shown = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if self._is_ready and not shown:
            self._changed.set()

    def _status(self) -> Object:
        prepared = self._prepared or datetime.now(UTC)
        init = status.Seen(
            PREPARE, self._images[PREPARE], f"processes://{self.uid}", prepared, ready=True
        )
        containers = [self.server.seen(), self.runner.seen()]
        return status.running(self.reported, self._created, prepared, init, containers)

    def _lost_conditions(self) -> list[Object]:
        self.server.ready = self.runner.ready = False
        conditions: list[Object] = self._status()["conditions"]
        return conditions

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

    # --- inside ---

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

    def tail(self, lines: int = 20) -> str:
        """The ends of its logs, for a failing test."""
        found = []
        for container in (self.server, self.runner):
            log = container.program.log
            text = log.read_text(errors="replace") if log.exists() else "(no log)"
            found += [f"--- {container.name}", *text.splitlines()[-lines:]]
        return "\n".join(found)

    def _container(self, name: str, program: Program) -> Container:
        return Container(name, self._images[name], program, self._changed.set)

    def _server_program(self) -> Program:
        folders, port = self._folders, str(self._port)
        where = ["--host", self.address, "--runner-port", port]
        files = ["--secret-dir", folders.secret, "--ledger", folders.ledger / "ledger.db"]
        command = [self._machine.server_python, "-P", "-m", "ratchet_sandbox.server", *where]
        return Program(
            argv=[*command, *map(str, files), "--word", str(folders.control / "word")],
            environment=self._environment(SERVER),
            folder=folders.root,
            log=self._machine.logs / f"{self.name}.server.log",
        )

    def _runner_program(self) -> Program:
        folders = self._folders
        places = ["--workspace", folders.workspace, "--runtime", folders.runtime]
        places += ["--control", folders.control, "--port", self._port]
        command = [self._machine.runner_python, "-P", "-m", "ratchet_sandbox.runner"]
        return Program(
            argv=[*command, *map(str, places)],
            environment=self._environment(SHELL),
            folder=folders.workspace,
            log=self._machine.logs / f"{self.name}.runner.log",
            user=self._user,
        )

    def _environment(self, container: str) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(self._machine.package),
            "PYTHONUNBUFFERED": "1",
            **{k: v for k, v in self._env[container].items() if k != "PYTHONHOME"},
            **self._machine.environment,
        }


def _any_certificate() -> ssl.SSLContext:
    """The kubelet's probes do not check certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_ANY = _any_certificate()


def _containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def _literals(env: list[Object] | None) -> dict[str, str]:
    return {item["name"]: item["value"] for item in env or () if "value" in item}
