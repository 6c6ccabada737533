"""Killed for want of memory, or not: what the container's cgroup says is told with the result."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ratchet_sandbox.runner import memory
from ratchet_sandbox.runner.shell import Shell

from tests.unit.sandbox.runners import Bench, open_bench

V2 = ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n")
V1 = ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n")
both = pytest.mark.parametrize(("name", "text"), [V2, V1], ids=["v2", "v1"])


def show(cgroup: Path, name: str, text: str, kills: int) -> None:
    (cgroup / name).parent.mkdir(parents=True, exist_ok=True)
    (cgroup / name).write_text(text.format(kills))


@both
def test_the_count_of_either_version_is_read(tmp_path: Path, name: str, text: str) -> None:
    assert memory.kills(tmp_path) is None
    show(tmp_path, name, text, 7)
    assert memory.kills(tmp_path) == 7


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "536870912\n", 536870912),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "536870912\n", 536870912),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("memory.other", "1\n", None),
    ],
)
def test_a_limit_is_one_that_limits(
    tmp_path: Path, name: str, text: str, limit: int | None
) -> None:
    show(tmp_path, name, text, 0)
    assert memory.limit(tmp_path) == limit


@both
def test_a_rise_is_told_with_the_limit(tmp_path: Path, name: str, text: str) -> None:
    show(tmp_path, name, text, 4)
    show(tmp_path, "memory.max", "536870912\n", 0)
    assert memory.note(3, 1, tmp_path) == (
        "[out of memory: the sandbox reached its limit of 512 MiB, and 1 process was killed]",
    )
    assert "2 processes were" in memory.note(2, 137, tmp_path)[0]


def test_a_kill_without_a_rise_is_called_what_it_is(tmp_path: Path) -> None:
    assert "cannot be seen here" in memory.note(None, 137, tmp_path)[0]
    show(tmp_path, *V2, 3)
    assert "not for want of memory" in memory.note(3, 137, tmp_path)[0]
    assert memory.note(3, 1, tmp_path) == ()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A shell whose container's cgroup is a folder of the test."""
    async with open_bench(tmp_path) as bench:
        shell = Shell(bench.config, bench.children, os.environ, cgroup=tmp_path)
        try:
            yield Bench(bench.config, bench.children, shell)
        finally:
            await shell.close()


async def test_a_command_killed_for_want_of_memory_says_so(bench: Bench, tmp_path: Path) -> None:
    show(tmp_path, *V2, 0)
    events = tmp_path / V2[0]
    kill = f"bash -c 'sed -i \"s/oom_kill 0/oom_kill 1/\" {events}; kill -9 $$'"

    result = await bench.bash(f"{kill}; (exit 1)")
    quiet = await bench.bash("true")

    assert "[out of memory: the sandbox reached its limit, and 1 process was killed]" in (
        result.content
    )
    assert "memory" not in quiet.content


async def test_another_kill_is_told_apart(bench: Bench, tmp_path: Path) -> None:
    show(tmp_path, *V2, 0)

    result = await bench.bash("bash -c 'kill -9 $$'")

    assert result.meta.exit_code == 137
    assert "not for want of memory" in result.content
