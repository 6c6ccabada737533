"""What the process node does on this machine: addresses, containers, and what they leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ratchet_sandbox import protocol
from ratchet_sandbox.failpoints import VARIABLE

from tests.proof.node import addresses, leftovers
from tests.proof.node.container import FAILPOINT, Container, Program
from tests.unit.sandbox.servers import eventually

LINES = "import os, time; print(os.environ.get('RATCHET_SANDBOX_FAILPOINT'), flush=True)"


@asynccontextmanager
async def kept(folder: Path, code: str, failpoint: str = "") -> AsyncIterator[Container]:
    """A container that runs some Python."""
    program = Program([sys.executable, "-c", code], {}, folder, folder / "log")
    container = Container("server", "image", program, lambda: None)
    container.failpoint = failpoint
    keeping = asyncio.create_task(container.keep(lambda: None, ready_at_once=True))
    try:
        await eventually(lambda: container.running, "the process runs")
        yield container
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await container.end(0)


async def test_a_killed_process_is_started_again_and_its_end_is_remembered(tmp_path: Path) -> None:
    async with kept(tmp_path, "import time; time.sleep(60)") as container:
        before, first = container.seen(), container.signal(signal.SIGKILL)
        await eventually(lambda: container.restarts == 1 and container.running, "it runs again")
        after = container.seen()
    assert container.seen().restarts == 1
    assert first != os.getpid()
    assert after.last is not None
    assert (after.last.code, after.last.id) == (137, before.id)
    assert after.id != before.id


async def test_a_failpoint_is_for_one_start_only(tmp_path: Path) -> None:
    assert FAILPOINT == VARIABLE
    async with kept(tmp_path, LINES + "; time.sleep(60)", "reserved=kill") as container:
        log = tmp_path / "log"
        await eventually(lambda: "reserved=kill" in log.read_text(), "it has its failpoint")
        container.signal(signal.SIGKILL)
        await eventually(lambda: "None" in log.read_text(), "it runs again without")
    assert log.read_text().splitlines() == ["reserved=kill", "None"]


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True)"
    async with kept(tmp_path, stubborn + "; time.sleep(60)") as container:
        await eventually(lambda: "x" in (tmp_path / "log").read_text(), "it ignores SIGTERM")
        pid = container.pid
        await container.end(0.1)
        assert not container.running
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_struck_failpoints_are_read_from_the_log(tmp_path: Path) -> None:
    async with kept(tmp_path, "print('failpoint reserved kill'); print('else')") as container:
        await eventually(lambda: bool(container.struck()), "the line is there")
        assert container.struck()[0] == "reserved kill"


async def test_all_that_a_sandbox_s_commands_left_is_ended(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    mine = await asyncio.create_subprocess_exec(
        "sh", "-c", "sleep 60 & sleep 60", env={"HOME": home, "PATH": os.environ["PATH"]}
    )
    other = await asyncio.create_subprocess_exec("sleep", "60", env={"HOME": f"{home}2"})
    leftovers.end_all(None, home)
    assert await mine.wait() == -signal.SIGKILL
    assert other.returncode is None
    other.kill()
    await other.wait()


def test_an_address_is_free_and_has_a_user_of_its_own() -> None:
    address = addresses.free_address()
    with socket.socket() as listener:
        listener.bind((address, protocol.HTTPS_PORT))
        listener.listen()
        assert not addresses._is_free(address, protocol.HTTPS_PORT)
    assert addresses.user_of("127.16.0.1") != addresses.user_of("127.16.0.2")
    assert addresses.user_of(address) > 2**24
