"""The runner's calls: once each, one after another, kept until acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ratchet_sandbox.protocol import CONTENT_LIMIT, FromRunner, Outcome, Result, Run, Started
from ratchet_sandbox.runner.calls import Calls

from tests.unit.sandbox.runners import KEY, Bench

OTHER = KEY[:-1] + "1"


@dataclass
class Desk:
    """Calls whose messages are kept for the test to see."""

    bench: Bench
    said: list[FromRunner] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = Calls(
            self.bench.config, self.bench.children, self.bench.shell, self.said.append
        )

    def run(
        self, key: str = KEY, tool: str = "bash", soft_s: float = 30.0, **arguments: Any
    ) -> None:
        self.calls.run(Run(key, tool, arguments, soft_s, 30.0))

    def results(self, key: str = KEY) -> list[Result]:
        return [m for m in self.said if isinstance(m, Result) and m.key == key]

    async def result(self, key: str = KEY) -> Result:
        await self.bench.wait_until(lambda: bool(self.results(key)))
        return self.results(key)[0]


@pytest.fixture
async def desk(bench: Bench) -> AsyncIterator[Desk]:
    desk = Desk(bench)
    yield desk
    desk.calls.close()


async def test_a_call_is_started_and_its_result_kept_until_it_is_acknowledged(desk: Desk) -> None:
    desk.run(command="echo hi")
    assert desk.calls.running == (KEY,)

    result = await desk.result()

    assert (result.outcome, result.content) == (Outcome.OK, "hi")
    assert desk.said[0] == Started(KEY)
    assert not desk.calls.running
    assert desk.calls.finished == (KEY,)
    desk.calls.ack(KEY)
    assert not desk.calls.finished


async def test_a_command_beyond_the_soft_timeout_of_its_call_is_left_running(desk: Desk) -> None:
    desk.run(soft_s=0.2, command="echo some; read; echo more")
    begun = await desk.result()
    desk.run(OTHER, "bash_stdin", text="\n")

    ended = await desk.result(OTHER)

    assert begun.outcome is Outcome.STILL_RUNNING
    assert begun.content.startswith("some\n[still running")
    assert (ended.outcome, ended.content) == (Outcome.OK, "more")


async def test_a_kept_result_is_said_again_unchanged(desk: Desk) -> None:
    desk.run(command="echo hi")
    result = await desk.result()

    desk.calls.resend(KEY)

    assert desk.results() == [result, result]


async def test_a_key_never_runs_twice_even_after_it_was_acknowledged(desk: Desk) -> None:
    desk.run(command="echo x >> log")
    desk.run(command="echo x >> log")
    await desk.result()
    desk.run(command="echo x >> log")
    desk.calls.ack(KEY)
    desk.run(command="echo x >> log")
    desk.run(OTHER, command="true")
    await desk.result(OTHER)

    assert (desk.bench.config.workspace / "log").read_text() == "x\n"


async def test_calls_run_one_after_another(desk: Desk) -> None:
    desk.run(command="sleep 0.2; echo a > f")
    desk.run(OTHER, tool="read_file", path="f")

    assert (await desk.result(OTHER)).content == "     1→a"


async def test_a_second_command_is_refused_at_once(desk: Desk) -> None:
    desk.run(command="sleep 30")
    await desk.bench.wait_until(lambda: desk.bench.shell.busy)
    desk.run(OTHER, command="echo no")

    assert (await desk.result(OTHER)).outcome is Outcome.DENIED
    desk.calls.cancel(KEY)
    assert (await desk.result()).outcome is Outcome.KILLED


async def test_a_call_that_waits_its_turn_can_be_cancelled_before_it_begins(desk: Desk) -> None:
    desk.run(command="sleep 30")
    desk.run(OTHER, tool="write_file", path="f", content="x")
    await desk.bench.wait_until(lambda: desk.bench.shell.busy)

    desk.calls.cancel(OTHER)
    desk.calls.cancel(KEY)
    result = await desk.result(OTHER)

    assert (result.outcome, result.content) == (
        Outcome.KILLED,
        "[cancelled before it began; nothing was run]",
    )
    assert not (desk.bench.config.workspace / "f").exists()


async def test_cancelling_what_is_over_or_unknown_changes_nothing(desk: Desk) -> None:
    desk.run(command="true")
    await desk.result()

    desk.calls.cancel(KEY)
    desk.calls.cancel(OTHER)

    assert len(desk.results()) == 1


async def test_an_unknown_tool_is_a_failure_that_names_the_known_ones(desk: Desk) -> None:
    desk.run(tool="teleport")

    assert (
        "bash, bash_kill, bash_output, bash_stdin, grep, read_file" in (await desk.result()).content
    )


async def test_a_fault_inside_a_tool_ends_its_call_and_not_the_runner(desk: Desk) -> None:
    desk.run(tool="read_file")  # no path: the operator would have refused it
    desk.run(OTHER, command="echo on")

    assert (await desk.result()).outcome is Outcome.FAILED
    assert (await desk.result(OTHER)).content == "on"


async def test_a_result_is_never_larger_than_the_protocol_allows(desk: Desk) -> None:
    desk.bench.write("f", ("é" * 60 + "\n") * 500)

    desk.run(tool="read_file", path="f", limit=10_000)
    result = await desk.result()

    assert len(result.content.encode()) <= CONTENT_LIMIT


async def test_the_event_loop_turns_while_files_are_read(desk: Desk) -> None:
    desk.bench.write("big", "x\n" * 2_000_000)
    desk.run(tool="read_file", path="big", offset=1_999_999)
    turns = 0
    while not desk.results():
        await asyncio.sleep(0)
        turns += 1

    assert turns > 1
