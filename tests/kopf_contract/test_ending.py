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
from ratchet.api import names
from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.replies import ModelFailure
from ratchet.core.tools import enabled_tools
from ratchet.fakes.clock import LoopClock
from ratchet.fakes.journal import FakeJournals, Store
from ratchet.fakes.sandbox import FakeSandboxes
from ratchet.ports import ModelRequest, TaskRef
from ratchet.shell.freshness import Freshness
from ratchet.shell.handlers import register
from ratchet.shell.supervisor import Supervisor, World

from tests.kopf_contract.api_shapes import status
from tests.kopf_contract.bell import WITHIN_S, Bell
from tests.kopf_contract.conftest import TASKS, Scene

CONFIG = Config(
    goal="Mend the sum.",
    model=ModelConfig(endpoint="default", url="http://model/v1", model="m"),
    sandbox=SandboxConfig(image="debian"),
    tools=enabled_tools((), ()),
)
REPO = Path(__file__).parents[2]
KOPFS_PATIENCE_S = 5
"""kopf's wait for tasks that began after it; a constant in its code (reactor/running.py)."""


@asynccontextmanager
async def _process(scene: Scene) -> AsyncIterator[asyncio.subprocess.Process]:
    """An operator as a process of its own, that watches tasks by now."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.kopf_contract.program",
        scene.server.url,
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


async def test_a_signal_ends_the_process_at_once_and_without_an_error(scene: Scene) -> None:
    """`main.main`: SIGTERM is kopf's to handle, and is a graceful end."""
    scene.server.create(TASKS, "mend")
    async with _process(scene) as process:
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await _end_of(process) == 0
        assert time.monotonic() - begun < KOPFS_PATIENCE_S


async def test_an_error_of_the_watch_ends_the_process_with_an_exit_code(scene: Scene) -> None:
    """`main.main` does not catch it, so that Kubernetes begins the process again."""
    async with _process(scene) as process:
        scene.server.send(TASKS, {"type": "ERROR", "object": status(500, "InternalError")})
        assert await _end_of(process) == 1


async def test_tasks_begun_by_handlers_go_on_for_seconds_and_are_then_cancelled(
    scene: Scene,
) -> None:
    """`handlers.register`, cleanup: this would happen to the loops, were they not ended there."""
    cancelled_at: list[float] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled_at.append(time.monotonic())

    def begin(registry: kopf.OperatorRegistry) -> None:
        @kopf.on.event(names.GROUP, names.VERSION, TASKS, registry=registry)
        async def task_event(event: Any, body: Any, memo: Any, **_: Any) -> None:
            memo.work = asyncio.create_task(work())
            scene.ears.note(scene.ears.tasks, event, body)

    scene.server.create(TASKS, "mend")
    async with scene.operator(register=begin) as operator:
        await scene.ears.heard("mend")
        begun = time.monotonic()
        await operator.stop()
    assert KOPFS_PATIENCE_S - 0.1 < cancelled_at[0] - begun < KOPFS_PATIENCE_S + 5


class Held:
    """A Lease that is always ours."""

    held = True


class Thinking:
    """A model that never answers."""

    def __init__(self, bell: Bell) -> None:
        self._bell, self._loop = bell, asyncio.get_running_loop()
        self.asked = self.aborted = 0

    async def ask(self, request: ModelRequest) -> ModelFailure:
        self.asked += 1
        self._loop.call_soon_threadsafe(self._bell.ring)
        try:
            await asyncio.Event().wait()
        finally:
            self.aborted += 1
        raise AssertionError("nobody sets that event")


async def test_loops_are_stopped_before_kopf_waits_for_them(scene: Scene) -> None:
    """`handlers.register`, cleanup: no loop runs on after the signal, and none is begun anew."""
    meta = scene.server.create(TASKS, "mend")["metadata"]
    store, model = Store(), Thinking(scene.server.bell)
    task = store.add(TaskRef(meta["namespace"], meta["name"], meta["uid"]), CONFIG)
    world = World(
        FakeJournals(store),
        model,
        FakeSandboxes(),
        LoopClock(),
        lambda _tool, _arguments: None,
        lambda: 0.5,
        "me",
    )
    supervisor = Supervisor(world, Held())
    async with scene.operator(register=lambda r: register(r, supervisor, Freshness())) as operator:
        await scene.server.bell.until(lambda: model.asked)
        begun = time.monotonic()
        assert await operator.stop() is None
    assert time.monotonic() - begun < KOPFS_PATIENCE_S
    assert (model.asked, model.aborted) == (1, 1)
    assert (task.epoch, supervisor.running) == (1, 0)
