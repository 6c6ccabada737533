"""One sandbox pod on the process node: its server and its runner as processes of this machine."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

import aiohttp
from ratchet.build.pod import SERVER, SHELL
from ratchet_sandbox import protocol

from tests.proof.node import addresses, leftovers, status
from tests.proof.node.container import Container, Program
from tests.proof.node.pod import Machine, Object, Pod

PROBE_EVERY_S = 1.0
"""As the pod's readinessProbe says."""
FIRST_PROBES_EVERY_S = 0.05
"""Until it is ready; the kubelet too probes at once after a start."""
PROBE_TIMEOUT_S = 3.0
PROBE_FAILURES = 3


class RunningSandbox(Pod):
    """A sandbox pod. Made by ProcessNode; ask it by `ProcessNode.sandbox` and `wait_for`.

    All `kill_*`, `stop_*` and `continue_*` work by pid, return that pid, and raise
    ProcessLookupError while the process does not run. After a kill the process is started again
    at once, as by a kubelet, with the same ledger, address and workspace. As everywhere, a server
    that has ended three times counts as broken while its pod is not ready
    (`ratchet.build.podstate.PATIENCE_RESTARTS`).
    """

    def __init__(self, machine: Machine, pod: Object) -> None:
        super().__init__(machine, pod)
        self._user = addresses.user_of(self.address) if machine.separate_users else None
        self._port = addresses.free_runner_port()
        self.server = self._container(SERVER, self._server_program())
        self.runner = self._container(SHELL, self._runner_program())

    @property
    def server_pid(self) -> int:
        """Raises ProcessLookupError while the server does not run."""
        return self.server.pid

    @property
    def runner_pid(self) -> int:
        """Raises ProcessLookupError while the runner does not run."""
        return self.runner.pid

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
        self.server.failpoint, self.runner.failpoint = server, runner

    def struck(self) -> list[str]:
        return self.server.struck() + self.runner.struck()

    async def wait_restarted(self, container: str, beyond: int = 0, within_s: float = 30.0) -> None:
        """Wait until `server` or `runner` has been started again more than `beyond` times."""
        one = self.server if container == "server" else self.runner
        await self._wait(lambda: one.restarts > beyond and one.running, within_s)

    def tail(self, lines: int = 20) -> str:
        found = []
        for container in (self.server, self.runner):
            log = container.program.log
            text = log.read_text(errors="replace") if log.exists() else "(no log)"
            found += [f"--- {container.name}", *text.splitlines()[-lines:]]
        return "\n".join(found)

    # --- for the node ---

    async def _prepare(self, secret: Object) -> None:
        files = await self._object("configmaps")
        await asyncio.to_thread(self._folders.make, secret, self._user)
        arguments = (files, self._machine.bundle, self.task_uid, self._user)
        await asyncio.to_thread(self._folders.fill, *arguments)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.server.keep(lambda: None, ready_at_once=False))
            group.create_task(self.runner.keep(self._end_commands, ready_at_once=True))
            group.create_task(self._probe())

    async def _stop(self, grace_s: float) -> None:
        await asyncio.gather(self.server.end(grace_s), self.runner.end(grace_s))
        await asyncio.to_thread(self._end_commands)

    def _seen(self) -> list[status.Seen]:
        return [self.server.seen(), self.runner.seen()]

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

    # --- the processes ---

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
        places += ["--control", folders.control, "--port", str(self._port)]
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
