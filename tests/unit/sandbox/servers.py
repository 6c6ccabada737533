"""A sandbox server for tests, in a process of its own, and a runner that plays a script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from ratchet.edges.certificates import Identity, make_identity, pinned_context, server_name
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import (
    Digest,
    Digests,
    FromServer,
    Hello,
    Outcome,
    Result,
    Run,
    Welcome,
)

UID = "0f3c9a1e-5555-4444-8888-121212121212"
NAME = server_name(UID, 1)
SANDBOX_IMAGE = Path(__file__).parents[3] / "sandbox-image"
PATIENCE_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a deadline."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110  other processes set no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"did not happen within {PATIENCE_S} s: {what}") from None


class ServerProcess:
    """`python -m ratchet_sandbox.server` on free ports, its files in a folder of the test."""

    def __init__(
        self,
        folder: Path,
        identity: Identity | None = None,
        *,
        ledger: Path | None = None,
        task_uid: str = UID,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.ledger = ledger or folder / "ledger.db"
        self.task_uid = task_uid
        self.wrapper = wrapper
        self.identity = identity or make_identity(NAME)
        self.port, self.runner_port = free_port(), free_port()
        self.word = folder / "word"
        self.log = folder / "log"
        self.dialled_by: list[ScriptedRunner] = []
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "token").write_text(self.identity.token)
        (folder / "tls.crt").write_text(self.identity.certificate)
        (folder / "tls.key").write_text(self.identity.key)

    def start(self) -> None:
        self.word.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.wrapper, sys.executable, "-m", "ratchet_sandbox.server",
                    "--host", "127.0.0.1", "--task-uid", self.task_uid, "--port", str(self.port),
                    "--runner-port", str(self.runner_port), "--secret-dir", str(self.folder),
                    "--ledger", str(self.ledger), "--word", str(self.word),
                ],
                env={**os.environ, "PYTHONPATH": str(SANDBOX_IMAGE)},
                stderr=log,
            )  # fmt: skip

    async def ready(self) -> None:
        """The word is written after both ports listen."""
        await eventually(self.word.exists, "the server wrote its word")

    def end(self, with_signal: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self._process
        self._process.send_signal(with_signal)
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def ended(self) -> tuple[int, str]:
        """Wait for an end of its own; the exit code, and what it has logged."""
        assert self._process
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code, self.log.read_text()

    def kill(self) -> None:
        if self._process:
            self.end(signal.SIGKILL)

    async def restart(self) -> None:
        """Kill it without warning and start it again."""
        self.kill()
        self.start()
        await self.ready()


class Http:
    """The server's API as the operator would use it, without the operator's client."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(self._count)
        self.session = aiohttp.ClientSession(trace_configs=[trace])
        self._tls: ssl.SSLContext = pinned_context(server.identity.certificate)
        self.ledger = ""
        self.epoch = 1
        self.sent = 0

    async def _count(self, *_: object) -> None:
        self.sent += 1

    async def ask(
        self, method: str, path: str, *, token: str | None = None, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        given = self._server.identity.token if token is None else token
        async with self.session.request(
            method,
            f"https://127.0.0.1:{self._server.port}{path}",
            headers={"Authorization": f"Bearer {given}"},
            ssl=self._tls,
            server_hostname=NAME,
            **more,
        ) as answer:
            return answer.status, json.loads(await answer.read())

    async def info(self) -> dict[str, Any]:
        _, body = await self.ask("GET", "/v1/info")
        self.ledger = str(body["ledger"])
        return body

    def order(self, command: str = "true", tool: str = "bash", **more: Any) -> dict[str, Any]:
        arguments = json.dumps({"command": command} if tool == "bash" else {"path": command})
        return {
            "tool": tool,
            "arguments": arguments,
            "digest": protocol.digest_of(tool, arguments),
            "epoch": self.epoch,
            "ledger": self.ledger,
            "softTimeoutSeconds": 30,
            "hardTimeoutSeconds": 300,
            **more,
        }

    async def put(
        self, key: str, command: str = "true", wait: float = 0, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        order = self.order(command, **more)
        return await self.ask("PUT", f"/v1/calls/{key}?wait={wait}", json=order)

    async def get(self, key: str, wait: float = 0) -> tuple[int, dict[str, Any]]:
        query = f"wait={wait}&epoch={self.epoch}&ledger={self.ledger}"
        return await self.ask("GET", f"/v1/calls/{key}?{query}")


class ScriptedRunner:
    """A runner's side of the connection: says hello, keeps what it was told, answers on demand."""

    def __init__(
        self, server: ServerProcess, shell: str = "shell-1", auto: Outcome | None = None
    ) -> None:
        self._server = server
        server.dialled_by.append(self)
        self.shell = shell
        self._auto = auto
        self.file_digest: str | None = None
        """If set, the answer to every question for a file's digest."""
        self.got: list[FromServer] = []
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self.closed = False

    async def dial(
        self,
        running: tuple[str, ...] = (),
        finished: tuple[str, ...] = (),
        word: str | None = None,
    ) -> None:
        self.closed = False
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._server.runner_port, limit=protocol.LINE_LIMIT
        )
        word = self._server.word.read_text() if word is None else word
        self.say(Hello(word, protocol.PROTOCOL, self.shell, running, finished))
        self._listening = asyncio.create_task(self._listen(self._reader))

    async def join(self, running: tuple[str, ...] = (), finished: tuple[str, ...] = ()) -> None:
        """Dial and wait for the welcome."""
        welcomes = sum(isinstance(m, Welcome) for m in self.got)
        await self.dial(running, finished)
        await eventually(
            lambda: sum(isinstance(m, Welcome) for m in self.got) > welcomes, "a welcome"
        )

    def say(self, message: protocol.Message) -> None:
        self.say_raw(protocol.encode(message))

    def say_raw(self, line: bytes) -> None:
        assert self._writer
        self._writer.write(line)

    def finish(self, key: str, content: str = "done", outcome: Outcome = Outcome.OK) -> None:
        self.say(Result(key, outcome, content))

    @property
    def runs(self) -> list[str]:
        return [message.key for message in self.got if isinstance(message, Run)]

    async def was_told(self, message: FromServer) -> None:
        await eventually(lambda: message in self.got, f"{message} arrived")

    async def was_given(self, key: str) -> None:
        await eventually(lambda: key in self.runs, f"call {key} arrived")

    async def was_closed(self) -> None:
        await eventually(lambda: self.closed, "the server closed the connection")

    async def leave(self) -> None:
        if self._listening:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._writer:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                message = protocol.decode_from_server(line)
                self.got.append(message)
                if isinstance(message, Run) and self._auto:
                    self.finish(message.key, outcome=self._auto)
                if isinstance(message, Digest) and self.file_digest:
                    self.say(Digests(message.id, self.file_digest))
        if self._writer:
            self._writer.transport.abort()  # nobody reads what is still to be sent
        await self._hang_up()
        self.closed = True


@contextlib.asynccontextmanager
async def running_server(
    folder: Path, *, ledger: Path | None = None, wrapper: tuple[str, ...] = ()
) -> AsyncIterator[tuple[ServerProcess, Http]]:
    server = ServerProcess(folder, ledger=ledger, wrapper=wrapper)
    server.start()
    try:
        await server.ready()
        http = Http(server)
        async with http.session:
            await http.info()
            yield server, http
    finally:
        for runner in server.dialled_by:
            await runner.leave()
        server.kill()
