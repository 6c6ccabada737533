"""The runner as a process, with a real server on loopback: every call once, every result kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ratchet_sandbox import protocol

from tests.unit.sandbox.runners import make_config
from tests.unit.sandbox.servers import (
    SANDBOX_IMAGE,
    UID,
    Http,
    ServerProcess,
    running_server,
)


class RunnerProcess:
    """`python -m ratchet_sandbox.runner` in folders of the test."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self._server = server
        self.config = make_config(folder)
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.config.control / "word").unlink(missing_ok=True)
        (self.config.control / "word").symlink_to(self._server.word)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "ratchet_sandbox.runner",
                    "--workspace", str(self.config.workspace),
                    "--runtime", str(self.config.runtime),
                    "--control", str(self.config.control),
                    "--port", str(self._server.runner_port), "--hard-timeout", "60",
                ],
                env={**os.environ, "PYTHONPATH": str(SANDBOX_IMAGE), "RATCHET_TASK_UID": UID},
                stderr=log,
            )  # fmt: skip

    def end(self, with_signal: signal.Signals) -> int:
        assert self._process
        self._process.send_signal(with_signal)
        code = self._process.wait(10)
        self._process = None
        return code

    def stop(self) -> None:
        if self._process:
            self.end(signal.SIGTERM)


class Sandbox:
    """A server and a runner, and calls through the front door."""

    def __init__(self, server: ServerProcess, http: Http, runner: RunnerProcess) -> None:
        self.server, self.http, self.runner = server, http, runner
        self._turn = 0

    def next_key(self) -> str:
        self._turn += 1
        return f"{UID}/{self._turn}/0"

    async def connected(self) -> None:
        connected = False
        for _ in range(400):
            info = await self.http.info()
            if connected := info["runner"]["connected"]:
                break
            await eventually_tick()
        assert connected, self.runner.log.read_text()

    async def use(self, tool: str, **arguments: Any) -> dict[str, Any]:
        key = self.next_key()
        text = json.dumps(arguments)
        order = self.http.order(
            tool=tool, arguments=text, digest=protocol.digest_of(tool, text)
        ) | {"tool": tool, "arguments": text, "digest": protocol.digest_of(tool, text)}
        status, record = await self.http.ask("PUT", f"/v1/calls/{key}?wait=20", json=order)
        assert status == 200, record
        return record


async def eventually_tick() -> None:
    """Yield long enough for the other processes to act."""
    import asyncio

    await asyncio.sleep(0.025)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    (tmp_path / "server").mkdir()
    async with running_server(tmp_path / "server") as (server, http):
        runner = RunnerProcess(server, tmp_path)
        runner.start()
        try:
            sandbox = Sandbox(server, http, runner)
            await sandbox.connected()
            yield sandbox
        finally:
            runner.stop()


async def test_a_file_is_written_read_and_seen_by_the_shell(sandbox: Sandbox) -> None:
    wrote = await sandbox.use("write_file", path="a/b.txt", content="one\ntwo\n")
    read = await sandbox.use("read_file", path="a/b.txt")
    counted = await sandbox.use("bash", command="wc -l < a/b.txt; exit 7")

    assert (wrote["state"], wrote["outcome"]) == ("Finished", "Ok")
    assert read["content"] == "     1→one\n     2→two"
    assert (counted["outcome"], counted["meta"]["exitCode"]) == ("Failed", 7)
    assert counted["content"].startswith("2\n")
