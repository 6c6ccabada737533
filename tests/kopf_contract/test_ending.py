"""How kopf ends: at a signal, at an error, and what becomes of tasks that it did not begin."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kopf
import pytest
from ratchet.api import names
from ratchet.shell.watching import ENDS_WITHIN_S

from tests.kopf_contract.api_shapes import status
from tests.kopf_contract.bell import WITHIN_S
from tests.kopf_contract.conftest import TASKS, Scene
from tests.kopf_contract.operators import quick_settings

REPO = Path(__file__).parents[2]
KOPFS_PATIENCE_S = 5.0
"""kopf's wait for tasks that began after it; a constant in its code (reactor/running.py)."""


@asynccontextmanager
async def _process(scene: Scene) -> AsyncIterator[asyncio.subprocess.Process]:
    """An operator as a process of its own, that watches by now."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.kopf_contract.program",
        str(scene.server.port),
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(REPO / "operator"), str(REPO)))},
    )
    try:
        await scene.watching()
        await scene.watching("pods")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _end_of(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(WITHIN_S):
        return await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_at_once_and_without_an_error(
    scene: Scene, number: signal.Signals
) -> None:
    """`watching.Watch`: a handler that is set after kopf began takes the place of kopf's."""
    scene.server.create(TASKS, "mend")
    async with _process(scene) as process:
        begun = time.monotonic()
        process.send_signal(number)
        assert await _end_of(process) == 0
        assert time.monotonic() - begun < ENDS_WITHIN_S


async def test_an_error_of_the_watch_ends_the_process_with_an_exit_code(scene: Scene) -> None:
    """`main.main` does not catch it, so that Kubernetes begins the process again."""
    async with _process(scene) as process:
        scene.server.send(TASKS, {"type": "ERROR", "object": status(500, "InternalError")})
        assert await _end_of(process) == 1


def _begins(scene: Scene, ended: list[float], begun: list[asyncio.Task[None]]) -> Any:
    """A handler that begins a task of its own, as the supervisor does."""

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(time.monotonic())

    def register(registry: kopf.OperatorRegistry) -> None:
        @kopf.on.event(names.GROUP, names.VERSION, TASKS, registry=registry)
        async def task_event(**_: Any) -> None:
            begun.append(asyncio.create_task(work()))

    return register


async def test_cancelling_what_kopf_spawned_ends_its_watches_and_no_task_of_ours(
    scene: Scene,
) -> None:
    """`watching.Watch`: our loops are ended first, by the supervisor, and kopf last."""
    begun: list[asyncio.Task[None]] = []
    scene.server.create(TASKS, "mend")
    async with scene.operator(register=_begins(scene, [], begun)):
        await scene.server.bell.until(lambda: begun)
        await scene.watching()
        since = time.monotonic()
    assert time.monotonic() - since < ENDS_WITHIN_S
    await scene.watching(times=0)
    assert not begun[0].done()


async def test_kopfs_own_way_out_lets_tasks_of_others_go_on_and_then_cancels_them(
    scene: Scene,
) -> None:
    """`watching`: why it is not `kopf.operator` that our operator runs."""
    begun: list[asyncio.Task[None]] = []
    ended: list[float] = []
    registry = kopf.OperatorRegistry()
    _begins(scene, ended, begun)(registry)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=scene.server.url, token="first")

    stop: asyncio.Future[None] = asyncio.Future()
    scene.server.create(TASKS, "mend")
    running = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=quick_settings(),
            standalone=True,
            clusterwide=True,
            stop_flag=stop,
        )
    )
    await scene.server.bell.until(lambda: begun)
    since = time.monotonic()
    stop.set_result(None)
    await running
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
    assert ended[0] - since > KOPFS_PATIENCE_S - 0.1
