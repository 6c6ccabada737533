"""What runs beside the benchmark: the scripted model, and the operator with measuring ports."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.bare import NotMeasured
from benchmarks.scripts import Run, script
from tests.e2e.operator_process import REPO, OperatorProcess, free_port

MODEL_UP_WITHIN_S = 20.0


@asynccontextmanager
async def scripted_model(runs: tuple[Run, ...], folder: Path) -> AsyncIterator[str]:
    """The fake SGLang as a process of its own on the loopback address; its base URL."""
    path, port = folder / "script.yaml", free_port()
    path.write_text(script(runs))
    with (folder / "model.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sglang_fake", "--log-level", "warning"),
            *("--script", str(path), "--port", str(port), "--drain-linger-s", "0"),
            env={**os.environ, "PYTHONPATH": str(REPO / "inference" / "fake")},
            stdout=log,
            stderr=log,
        )
    try:
        await until_it_answers(f"http://127.0.0.1:{port}/ping", process, folder)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_it_answers(url: str, process: asyncio.subprocess.Process, folder: Path) -> None:
    """Wait for the first good answer. Raises NotMeasured and TimeoutError."""
    async with asyncio.timeout(MODEL_UP_WITHIN_S), aiohttp.ClientSession() as session:
        while True:
            if process.returncode is not None:
                raise NotMeasured(f"the model ended: {(folder / 'model.log').read_text()[-2000:]}")
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class MeasuredOperator(OperatorProcess):
    """The operator as `benchmarks.operator`, which leaves its trace in `folder` when it ends."""

    module: str = "benchmarks.operator"
    folder: Path = field(default_factory=Path)
    profile: bool = False

    def _environment(self) -> dict[str, str]:
        more = {"RATCHET_BENCH_FOLDER": str(self.folder)}
        if self.profile:
            more["RATCHET_BENCH_PROFILE"] = "1"
        return OperatorProcess._environment(self) | more
