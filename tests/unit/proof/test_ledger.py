"""The outside ledger keeps what it has answered, and tools can write into it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.proof.ledger import Ledger


async def _bash(command: str) -> int:
    process = await asyncio.create_subprocess_exec("bash", "-c", command)
    return await process.wait()


async def test_an_effect_is_in_the_file_when_the_command_has_ended(tmp_path: Path) -> None:
    async with Ledger("127.0.0.1", tmp_path / "effects.txt") as ledger:
        assert await _bash(ledger.command("uid/1/0")) == 0
        assert ledger.counts() == {"uid/1/0": 1}


async def test_many_effects_at_once_are_all_counted(tmp_path: Path) -> None:
    async with Ledger("127.0.0.1", tmp_path / "effects.txt") as ledger:
        commands = [ledger.command(f"uid/{n % 5}/0") for n in range(20)]
        assert set(await asyncio.gather(*map(_bash, commands))) == {0}
        assert ledger.counts() == {f"uid/{n}/0": 4 for n in range(5)}


async def test_lines_outlive_the_process(tmp_path: Path) -> None:
    ledger = Ledger("127.0.0.1", tmp_path / "effects.txt")
    await ledger.start()
    await _bash(ledger.command("uid/1/0"))
    assert ledger.process is not None
    ledger.process.kill()
    await ledger.process.wait()
    assert await _bash(f"{ledger.command('uid/1/0')} 2>/dev/null") != 0, "nobody noted it"
    await ledger.start()
    try:
        assert await _bash(ledger.command("uid/2/0")) == 0
        assert ledger.counts() == {"uid/1/0": 1, "uid/2/0": 1}
    finally:
        await ledger.stop()
