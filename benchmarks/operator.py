"""The operator with measuring ports, as a process: `python -m benchmarks.operator`.

Besides the operator's own settings it needs `RATCHET_BENCH_FOLDER`: there it leaves its trace when
it ends, and waits for the word to begin. `RATCHET_BENCH_PROFILE=1` adds a profile.
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import sys
from collections import Counter
from pathlib import Path

from ratchet.observe import log
from ratchet.ports import ModelRequest
from ratchet.shell.main import operate
from ratchet.shell.settings import Settings, read_settings

from benchmarks.ports import measured
from benchmarks.trace import Trace

POLL_S = 0.02


class FirstRequests:
    """Holds the first request of each task until it may go, and keeps one of the later ones.

    A file `go-<task uid>` lets a task begin; the number in it says which request is to be kept, as
    `request-<task uid>.json`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keep: dict[str, int] = {}
        self._seen: Counter[str] = Counter()

    async def __call__(self, request: ModelRequest) -> None:
        """Let a request pass, when it may."""
        task = request.routing_key
        if task not in self._keep:
            self._keep[task] = await self._word(task)
        self._seen[task] += 1
        if self._seen[task] == self._keep[task]:
            (self._folder / f"request-{task}.json").write_text(request.body)

    async def _word(self, task: str) -> int:
        word = self._folder / f"go-{task}"
        while not word.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(POLL_S)
        return int(word.read_text())


def main() -> int:
    """Run until SIGTERM, then leave the trace."""
    folder = Path(os.environ["RATCHET_BENCH_FOLDER"])
    settings = read_settings()
    log.set_up(settings.log_level)
    trace = Trace()
    profile = cProfile.Profile() if os.environ.get("RATCHET_BENCH_PROFILE") else None
    if profile is not None:
        profile.enable()
    asyncio.run(_operate(settings, trace, folder))
    if profile is not None:
        profile.disable()
        profile.dump_stats(folder / "profile")
    trace.peak_mib = peak_mib()
    trace.save(folder / "trace.jsonl")
    return 0


async def _operate(settings: Settings, trace: Trace, folder: Path) -> None:
    hold = FirstRequests(folder)
    await operate(settings, around=lambda world: measured(world, trace, hold))


def peak_mib() -> float:
    """The most memory that this process has had resident (`VmHWM` of proc(5)), in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
