"""The operator as a process of its own on this machine, against a real API server.

It runs the shipped code under kopf, is killed like a real one, and looks after
the one namespace of its test.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

REPO = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 40.0
STOP_WITHIN_S = 15.0


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def state_of(pid: int) -> str:
    """The letter of a process's state, as proc(5) has it; T is stopped. Raises FileNotFoundError."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@dataclass(slots=True)
class OperatorProcess:
    """One operator. Use as `async with`; `kill` and `start` may be repeated in between."""

    kubeconfig: str
    namespace: str
    images: dict[str, str]
    log: Path
    module: str = "ratchet.shell.main"
    pod: str = ""
    """Who it says it is: the same at every start, as the containers of one pod are. Empty: another
    at every start, as pods are."""
    more: dict[str, str] = field(default_factory=dict)
    """Further variables of its environment, from the next start on."""
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    starts: int = 0

    async def __aenter__(self) -> OperatorProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it, and wait until it is ready: the Lease is held and the watch delivers."""
        await self.launch()
        await self.ready()

    async def launch(self) -> None:
        """Start it."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.module,
                env=self._environment(),
                cwd=REPO,
                stdout=log,
                stderr=log,
            )

    async def ready(self, within_s: float = READY_WITHIN_S, role: str = "leading") -> None:
        """Wait until it is ready, and leads; or is in the other role, "standby"."""
        assert self.process is not None
        async with asyncio.timeout(within_s), aiohttp.ClientSession() as session:
            while not await self._is_ready(session, role):
                assert self.process.returncode is None, f"the operator ended: {self.tail()}"
                await asyncio.sleep(0.05)

    async def _is_ready(self, session: aiohttp.ClientSession, role: str) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return answer.status == 200 and (await answer.text()).strip() == role
        except aiohttp.ClientError:
            return False

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(REPO / "operator"),
            "KUBECONFIG": self.kubeconfig,
            "RATCHET_NAMESPACE": self.namespace,
            "RATCHET_WATCH_NAMESPACES": self.namespace,
            "RATCHET_POD": self.pod or f"operator-{self.starts}",
            "RATCHET_PROBE_PORT": str(self.port),
            "RATCHET_SERVER_IMAGE": self.images["server"],
            "RATCHET_RUNNER_IMAGE": self.images["runner"],
            **self.more,
        }

    async def kill(self) -> None:
        """SIGKILL: no goodbye, no release of the Lease."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def died(self, within_s: float) -> int | None:
        """Wait for its end; the exit code, or None if it lives on."""
        assert self.process is not None
        try:
            async with asyncio.timeout(within_s):
                return await self.process.wait()
        except TimeoutError:
            return None

    async def stands_still(self, within_s: float) -> bool:
        """Wait until it has been stopped by SIGSTOP; False if it does not come to that."""
        assert self.process is not None
        try:
            async with asyncio.timeout(within_s):
                while state_of(self.process.pid) != "T":  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.02)
        except (TimeoutError, FileNotFoundError):
            return False
        return True

    def pause(self) -> None:
        """SIGSTOP: it stands still and knows nothing of it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help in time."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self.process.wait()
        except TimeoutError:
            await self.kill()
            raise

    def tail(self, lines: int = 30) -> str:
        """The end of its log, for a failing test."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
