"""Output without end costs little memory, little disk, and never the timers."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner.output import INLINE_LIMIT, SPILL_LIMIT

from tests.unit.sandbox.runners import Bench

ALLOWED = 20 * 1024
"""KiB that a flood may cost, however long it is."""
LINE = 200_000_000


def resident(word: str) -> int:
    """KiB of this process: VmRSS now, VmHWM at most since the last `forget_peak` (proc(5))."""
    found = re.search(rf"{word}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def forget_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


async def test_one_line_of_200_megabytes_costs_bounded_memory_and_disk(bench: Bench) -> None:
    await bench.bash("true")
    before = forget_peak()

    result = await bench.bash(f"head -c {LINE} /dev/zero | tr '\\0' x; echo; echo end", timeout=300,
                              hard_timeout_s=300)  # fmt: skip

    assert resident("VmHWM") - before < ALLOWED
    assert result.outcome is Outcome.OK
    assert result.content.endswith("x\nend")
    assert f"[{LINE + 5 - INLINE_LIMIT} bytes left out here; its beginning is in" in result.content
    assert result.meta.spill
    assert (bench.config.workspace / result.meta.spill).stat().st_size == SPILL_LIMIT


async def test_a_flood_starves_no_timer_and_costs_bounded_memory(bench: Bench) -> None:
    await bench.bash("true")
    before = forget_peak()
    late = asyncio.create_task(lateness(1.5))
    began = time.monotonic()

    result = await bench.bash("yes & yes & yes; wait", timeout=300, hard_timeout_s=1.5)

    assert result.outcome is Outcome.TIMED_OUT
    assert time.monotonic() - began < 10
    assert resident("VmHWM") - before < ALLOWED
    assert await late < 1.0


async def lateness(seconds: float) -> float:
    """How late the event loop's timers are at worst while it goes on."""
    end, worst = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        due = time.monotonic() + 0.02
        await asyncio.sleep(0.02)
        worst = max(worst, time.monotonic() - due)
    return worst


async def test_a_flood_that_nobody_polls_costs_no_more(bench: Bench) -> None:
    await bench.bash("true")
    before = forget_peak()
    begun = await bench.bash("yes", timeout=1)

    killed = await bench.use("bash_kill", signal="KILL")

    assert begun.outcome is Outcome.STILL_RUNNING
    assert len(begun.content) < INLINE_LIMIT + 1000
    assert len(killed.content) < INLINE_LIMIT + 1000
    assert resident("VmHWM") - before < ALLOWED
    names = list(bench.config.spill.iterdir())
    assert sum(path.stat().st_size for path in names) <= SPILL_LIMIT


async def test_noise_of_all_kinds_is_taken(bench: Bench) -> None:
    noise = "head -c 300000 /dev/urandom; for n in {1..2000}; do printf '\\e[2J\\e[31m%s\\e[0m\\r' $n; done"

    result = await bench.bash(f"{noise}; (exit 7)")

    assert result.meta.exit_code == 7
    assert result.meta.not_utf8
    result.content.encode()
