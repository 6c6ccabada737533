"""What runs beside the load: the fake SGLang with places, and what /proc tells of a process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.bare import NotMeasured
from benchmarks.processes import until_it_answers
from tests.e2e.operator_process import REPO, OperatorProcess, free_port

_TICKS = os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def model(folder: Path, script: str, *options: str) -> AsyncIterator[str]:
    """The fake SGLang as a process of its own on the loopback address; its address without /v1."""
    port = free_port()
    path = folder / f"script-{port}.yaml"
    path.write_text(script)
    with (folder / "model.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sglang_fake", "--log-level", "warning"),
            *("--script", str(path), "--port", str(port), "--drain-linger-s", "0", *options),
            env={**os.environ, "PYTHONPATH": str(REPO / "inference" / "fake")},
            stdout=log,
            stderr=log,
        )
    try:
        await until_it_answers(f"http://127.0.0.1:{port}/ping", process, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def cpu_s(process: OperatorProcess) -> float:
    """User and system time so far (fields 14 and 15 of proc(5), /proc/PID/stat)."""
    fields = Path(f"/proc/{_pid(process)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mib(process: OperatorProcess) -> float:
    """The most memory that it has had resident (`VmHWM` of proc(5))."""
    for line in Path(f"/proc/{_pid(process)}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise NotMeasured("the operator ended before its memory was read")


def _pid(process: OperatorProcess) -> int:
    if process.process is None or process.process.returncode is not None:
        raise NotMeasured(f"the operator ended: {process.tail()}")
    return process.process.pid
