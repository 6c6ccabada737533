"""A router process, its two workers, and requests through it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from sglang_fake import FakeSGLang, Settings, check_script

Json = dict[str, Any]
UP_WITHIN_S = 40.0
VALUES = Path(__file__).parents[2] / "charts" / "ratchet" / "values.yaml"
# Shorter than in the chart, so that the tests need not wait.
INTERVAL = {"health-check-interval-secs": 1}


ANSWERS: Json = {"conversations": [{"loop": True, "turns": [{"reply": {"content": "Well."}}]}]}


def chart_flags() -> tuple[str, ...]:
    """What the chart gives its router. Its own retries are off: the operator tries again itself."""
    router = yaml.safe_load(VALUES.read_text())["sglang"]["router"]
    options = {"policy": router["policy"], "disable-retries": True, **router["options"], **INTERVAL}
    return tuple(word for name, value in options.items() for word in _words(name, value))


def _words(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    return [f"--{name}", str(value)]


def installed() -> bool:
    return importlib.util.find_spec("sglang_router") is not None


def worker(**settings: Any) -> FakeSGLang:
    """A worker that answers at once, and keeps what it was sent."""
    known: Json = {"disconnect_poll_s": 0.2, "health_delay_s": 0.01, "keep_bodies": True}
    return FakeSGLang(check_script(ANSWERS), Settings(**{**known, **settings}))


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Json


@dataclass(frozen=True, slots=True)
class Router:
    """The router's address, its workers, and a session to ask with."""

    url: str
    workers: tuple[FakeSGLang, FakeSGLang]
    http: aiohttp.ClientSession

    async def ask(self, key: str, **body: Any) -> Reply:
        """One chat request of the task `key`."""
        whole = {"model": "fake-model", "messages": [{"role": "user", "content": "Hello."}], **body}
        headers = {"x-smg-routing-key": key} if key else {}
        url = f"{self.url}/v1/chat/completions"
        async with self.http.post(url, json=whole, headers=headers) as answer:
            found = await answer.json() if answer.content_type == "application/json" else {}
            return Reply(answer.status, dict(answer.headers), found)

    async def status(self, path: str) -> int:
        async with self.http.get(self.url + path) as answer:
            return answer.status

    async def home_of(self, key: str) -> FakeSGLang:
        """The worker that the task's requests go to; asks once."""
        before = [len(worker.requests) for worker in self.workers]
        assert (await self.ask(key)).status == 200
        after = [len(worker.requests) for worker in self.workers]
        return self.workers[0] if after[0] > before[0] else self.workers[1]

    async def one_task_each(self) -> tuple[str, str]:
        """Keys of a task of the first and of one of the second worker."""
        found: dict[int, str] = {}
        number = 0
        while len(found) < 2:
            home = await self.home_of(f"task-{number}")
            found.setdefault(self.workers.index(home), f"task-{number}")
            number += 1
        return found[0], found[1]


@asynccontextmanager
async def router_before(
    first: FakeSGLang, second: FakeSGLang, flags: Sequence[str] | None = None
) -> AsyncIterator[Router]:
    """A router process that has found both workers healthy."""
    port, metrics = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sglang_router.launch_router"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)),
            *("--worker-urls", first.url, second.url, *(flags or chart_flags())),
            stdout=log,
            stderr=log,
            # It looks for the model's tokenizer on Hugging Face and does without; not from here.
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"},
            cwd=folder,
        )
        try:
            async with aiohttp.ClientSession() as http:
                up = Router(f"http://127.0.0.1:{port}", (first, second), http)
                await _both_found(up, process)
                yield up
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _both_found(router: Router, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(UP_WITHIN_S):
        while True:
            assert process.returncode is None, "the router ended while it started"
            try:
                async with router.http.get(f"{router.url}/readiness") as answer:
                    if (await answer.json()).get("healthy_workers") == 2:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
