"""The runner as a process, with a real server on loopback: every call once, every result kept."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ratchet_sandbox import protocol

from tests.unit.sandbox.runners import alive, make_base, make_config
from tests.unit.sandbox.servers import (
    SANDBOX_IMAGE,
    UID,
    Http,
    ServerProcess,
    eventually,
    running_server,
)

Record = dict[str, Any]


class RunnerProcess:
    """`python -m ratchet_sandbox.runner` in folders of the test."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.config = make_config(folder)
        self.log = folder / "log"
        make_base(self.config, {"a.txt": "one\n"})
        (self.config.control / "word").symlink_to(server.word)

    def start(self) -> None:
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

    async def connected(self) -> str:
        """Wait until a runner is connected; its id."""
        async with asyncio.timeout(20):
            while not (info := await self.http.info())["runner"]["connected"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return str(info["runner"]["shell"])

    async def submit(self, tool: str, *, wait: float = 20, **arguments: Any) -> Record:
        """Hand in the next call; its record after `wait` seconds at most."""
        self._turn += 1
        text = json.dumps(arguments)
        digest = protocol.digest_of(tool, text)
        order = self.http.order() | {"tool": tool, "arguments": text, "digest": digest}
        status, record = await self.http.ask(
            "PUT", f"/v1/calls/{UID}/{self._turn}/0?wait={wait}", json=order
        )
        assert status == 200, record
        return record

    async def finished(self, key: str) -> Record:
        _, record = await self.http.get(key, wait=20)
        assert record["state"] == "Finished", record
        return record

    def workspace(self, name: str) -> Path:
        return self.runner.config.workspace / name


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
    wrote = await sandbox.submit("write_file", path="a/b.txt", content="one\ntwo\n")
    read = await sandbox.submit("read_file", path="a/b.txt")
    counted = await sandbox.submit("bash", command="wc -l < a/b.txt; (exit 7)")

    assert (wrote["state"], wrote["outcome"]) == ("Finished", "Ok")
    assert read["content"] == "     1→one\n     2→two"
    assert (counted["outcome"], counted["meta"]["exitCode"]) == ("Failed", 7)
    assert counted["content"] == "2\n[exit code 7]"


async def test_the_operator_gets_patch_and_files(sandbox: Sandbox) -> None:
    await sandbox.submit("bash", command="echo two >> a.txt")

    status, diff = await sandbox.http.ask("GET", "/v1/diff")

    assert status == 200
    assert b"+two" in base64.b64decode(diff["patch"])


async def test_a_command_goes_on_and_is_told_when_the_server_was_killed(sandbox: Sandbox) -> None:
    call = await sandbox.submit("bash", command="touch begun; sleep 1; echo done >> log", wait=0)
    await eventually(sandbox.workspace("begun").exists, "the command began")
    shell = await sandbox.connected()

    await sandbox.server.restart()

    assert await sandbox.connected() == shell
    assert (await sandbox.finished(call["key"]))["outcome"] == "Ok"
    assert sandbox.workspace("log").read_text() == "done\n"


async def test_a_result_that_came_while_the_server_was_away_is_kept(sandbox: Sandbox) -> None:
    call = await sandbox.submit("bash", command="touch begun; sleep 0.5; touch ended", wait=0)
    await eventually(sandbox.workspace("begun").exists, "the command began")

    sandbox.server.kill()
    await eventually(sandbox.workspace("ended").exists, "the command ended")
    sandbox.server.start()
    await sandbox.server.ready()
    await sandbox.connected()

    assert (await sandbox.finished(call["key"]))["outcome"] == "Ok"


async def test_a_killed_runner_makes_its_call_unknown_and_a_new_one_serves_on(
    sandbox: Sandbox,
) -> None:
    call = await sandbox.submit("bash", command="touch begun; sleep 0.3; echo x >> log", wait=0)
    await eventually(sandbox.workspace("begun").exists, "the command began")
    first = await sandbox.connected()

    sandbox.runner.end(signal.SIGKILL)
    sandbox.runner.start()
    record = await sandbox.finished(call["key"])

    assert record["outcome"] == "Unknown"
    assert await sandbox.connected() != first
    assert (await sandbox.submit("bash", command="echo new"))["content"] == "new"


async def test_cancelling_kills_the_command_and_answers_with_its_output(sandbox: Sandbox) -> None:
    mark = f"{uuid.uuid4().int % 10**9}.5"
    call = await sandbox.submit(
        "bash", command=f"echo some; setsid sleep {mark} & touch begun; sleep {mark}", wait=0
    )
    await eventually(sandbox.workspace("begun").exists, "the command began")

    body = {"epoch": sandbox.http.epoch, "ledger": sandbox.http.ledger}
    _, record = await sandbox.http.ask("POST", f"/v1/calls/{call['key']}/cancel", json=body)

    assert (record["outcome"], record["content"].split("\n")[0]) == ("Killed", "some")
    assert alive(mark) == []


async def test_sigterm_ends_the_runner_and_all_that_the_shell_started(sandbox: Sandbox) -> None:
    mark = f"{uuid.uuid4().int % 10**9}.5"
    hide = f"(env -i setsid sh -c 'sleep {mark} & exec sleep {mark}' &)"
    await sandbox.submit("bash", command=f"{hide}; nohup sleep {mark} >/dev/null 2>&1 & sleep 0.2")
    assert len(alive(mark)) == 3

    assert sandbox.runner.end(signal.SIGTERM) == 0
    assert alive(mark) == []


async def test_orphans_leave_no_zombies(sandbox: Sandbox) -> None:
    await sandbox.submit(
        "bash", command="for i in 1 2 3 4 5; do (setsid sh -c 'echo $$ >> orphans' &); done"
    )
    orphans = sandbox.workspace("orphans")
    await eventually(
        lambda: orphans.exists() and orphans.read_text().count("\n") == 5, "all orphans ran"
    )

    pids = orphans.read_text().split()
    await eventually(
        lambda: not any(Path("/proc", pid).exists() for pid in pids), "all of them were collected"
    )


async def test_the_runners_own_files_stay_out_of_the_commands_path(sandbox: Sandbox) -> None:
    record = await sandbox.submit("bash", command="echo $PATH; env")

    assert str(sandbox.runner.config.runtime) not in record["content"]
    assert "RATCHET" not in record["content"]
