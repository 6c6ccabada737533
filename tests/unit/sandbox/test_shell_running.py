"""Commands that take longer than one waits for them: polled, fed, ended, and never lost silently."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner import terminal
from ratchet_sandbox.runner.result import ToolResult
from ratchet_sandbox.runner.shell import Shell

from tests.unit.sandbox.runners import Bench, alive, open_bench

ASKS = "printf 'name? '; read name; echo \"hello $name\"; answered=$name"


@pytest.fixture(autouse=True)
def interruptible() -> None:
    """Whoever started the tests in the background made them, and so the shell, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def until(bench: Bench, text: str) -> ToolResult:
    """Poll until the command has written this."""
    async with asyncio.timeout(20):
        while text not in (result := await bench.use("bash_output", wait=0.1)).content:
            assert result.outcome is Outcome.STILL_RUNNING, result
    return result


async def begin(bench: Bench, command: str) -> ToolResult:
    """Leave a command running."""
    result = await bench.bash(command, timeout=0.2)
    assert result.outcome is Outcome.STILL_RUNNING, result
    return result


async def test_a_soft_timeout_returns_what_there_is_and_the_command_goes_on(bench: Bench) -> None:
    result = await bench.bash("echo first; mkfifo go; cat <go; echo last; v=1", timeout=0.5)

    assert result.outcome is Outcome.STILL_RUNNING
    assert result.content.startswith("first\n[still running after ")
    assert "bash_output" in result.content
    assert result.meta.exit_code is None
    bench.write("let_go", "")
    await asyncio.to_thread((bench.config.workspace / "go").write_text, "now\n")
    ended = await bench.use("bash_output", wait=10)
    assert (ended.outcome, ended.content, ended.meta.exit_code) == (Outcome.OK, "now\nlast", 0)
    assert (await bench.bash("echo $v")).content == "1"


async def test_output_is_given_once_and_in_whole_characters(bench: Bench) -> None:
    await begin(bench, r"printf 'one\n\xc3'; read; printf '\xa9\n'; exit 4")

    poll = await bench.use("bash_output", wait=0)
    rest = await bench.use("bash_stdin", key="enter")

    assert poll.content.startswith("[still running")
    assert rest.content.startswith("é\n[this ended the shell")
    assert not rest.meta.not_utf8
    assert (rest.outcome, rest.meta.exit_code) == (Outcome.FAILED, 4)


async def test_a_command_that_runs_keeps_others_out_and_files_in(bench: Bench) -> None:
    await begin(bench, "sleep 60")

    denied = await bench.bash("echo no")
    written = await bench.use("write_file", path="a.txt", content="x")

    assert denied.outcome is Outcome.DENIED
    assert "still running" in denied.content
    assert written.outcome is Outcome.OK
    assert (await bench.use("bash_output", wait=0)).outcome is Outcome.STILL_RUNNING


@pytest.mark.parametrize("tool", ["bash_output", "bash_stdin", "bash_kill"])
async def test_with_nothing_running_the_tools_say_so(bench: Bench, tool: str) -> None:
    await bench.bash("true")

    arguments: dict[str, Any] = {"text": "x"} if tool == "bash_stdin" else {}
    result = await bench.use(tool, **arguments)

    assert (result.outcome, result.content) == (Outcome.FAILED, "no command is running")


async def test_an_end_that_nobody_asked_for_is_kept_and_announced(bench: Bench) -> None:
    await begin(bench, "read; echo late; (exit 3)")
    terminal_of(bench).type(b"\n")
    await bench.wait_until(lambda: not bench.shell.busy)

    other = await bench.bash("echo other")
    told = await bench.use("bash_output")
    again = await bench.use("bash_output")

    assert other.content == (
        "other\n[the command that had been left running has ended: bash_output gives what is untold "
        "of it]"
    )
    assert told.content == "late\n[exit code 3]"
    assert again.content == "no command is running"


def terminal_of(bench: Bench) -> terminal.Terminal:
    assert bench.shell.left is not None
    return bench.shell.left.terminal


async def test_what_is_typed_is_read_and_answered_at_once(bench: Bench) -> None:
    begun = await begin(bench, ASKS)
    assert begun.content.startswith("name? ")

    began = time.monotonic()
    result = await bench.use("bash_stdin", text="Ada\n")

    assert time.monotonic() - began < 8
    assert (result.outcome, result.content) == (Outcome.OK, "hello Ada")
    assert (await bench.bash("echo $answered")).content == "Ada"


async def test_what_was_typed_for_one_command_is_not_read_by_the_next(bench: Bench) -> None:
    await begin(bench, "read line")
    await bench.use("bash_stdin", text="one\ntwo\nthree\n")

    result = await bench.bash("read -t 0.2 left || echo nothing")

    assert result.content == "nothing"


async def test_control_d_ends_the_input(bench: Bench) -> None:
    await begin(bench, "cat -n; echo after")
    await bench.use("bash_stdin", text="a\n")

    result = await bench.use("bash_stdin", key="ctrl-d")

    assert result.content.endswith("after")
    assert result.outcome is Outcome.OK


async def test_control_c_interrupts_and_keeps_what_was_set(bench: Bench) -> None:
    begun = await begin(bench, "cd /; set=1; sleep 60; echo not reached")

    result = await bench.use("bash_stdin", key="ctrl-c")

    assert result.meta.exit_code == 130
    assert "SIGINT ended the command" in result.content
    assert "not reached" not in begun.content + result.content
    assert (await bench.bash("echo $set $PWD")).content == "1 /"


async def test_control_z_stops_a_command_and_lets_it_go_on(bench: Bench) -> None:
    await begin(bench, "bash -c 'while :; do echo tick; sleep 0.05; done'")

    await bench.use("bash_stdin", key="ctrl-z")
    await bench.use("bash_output", wait=0)
    silent = await bench.use("bash_output", wait=0.5)
    await bench.use("bash_stdin", key="ctrl-z")

    assert silent.content.startswith("[still running")
    await until(bench, "tick")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "give either text or key"),
        ({"text": "a", "key": "enter"}, "give either text or key"),
        ({"key": "f1"}, "key must be one of ctrl-c"),
        ({"text": "x" * 5000}, "a line has at most 4095 bytes"),
        ({"text": "x\n" * 40_000}, "does not read what was typed"),
    ],
)
async def test_what_cannot_be_typed_is_said(
    bench: Bench, arguments: dict[str, Any], says: str
) -> None:
    await begin(bench, "sleep 60")

    result = await bench.use("bash_stdin", **arguments)

    assert result.outcome is Outcome.FAILED
    assert says in result.content
    assert result.content.endswith("nothing was typed")


async def test_many_lines_are_all_read(bench: Bench) -> None:
    await begin(bench, "head -n 3000 | sha256sum; echo done")
    lines = "".join(f"line {n}\n" for n in range(3000))

    typed = await bench.use("bash_stdin", text=lines)
    rest = await bench.use("bash_output", wait=10)

    told = typed.content + rest.content
    assert f"{hashlib.sha256(lines.encode()).hexdigest()}  -\ndone" in told


async def test_a_hangup_ends_the_command_also_where_the_runner_was_started_by_nohup(
    tmp_path: Path,
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with open_bench(tmp_path) as bench:
            await begin(bench, "while :; do sleep 0.1; done")
            result = await bench.use("bash_kill", signal="HUP")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

    assert result.outcome is Outcome.OK, result


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
async def test_a_signal_ends_the_command_and_spares_earlier_jobs_and_state(
    bench: Bench, name: str
) -> None:
    mark, own = (f"{uuid.uuid4().int % 10**9}.5" for _ in range(2))
    await bench.bash(f"sleep {mark} & before=1")
    await begin(bench, f"during=1; while :; do sleep {own}; done")

    result = await bench.use("bash_kill", signal=name)

    assert result.outcome is Outcome.OK
    assert result.meta.exit_code == 128 + signal.Signals[f"SIG{name}"]
    assert f"SIG{name} ended the command" in result.content
    assert (await bench.bash("echo $before $during")).content == "1 1"
    assert alive(own) == []
    assert len(alive(mark)) == 1


async def test_a_signal_spares_what_an_earlier_job_starts_meanwhile(
    bench: Bench, tmp_path: Path
) -> None:
    go, on, mark = tmp_path / "go", tmp_path / "on", f"{uuid.uuid4().int % 10**9}.5"
    job = f"until test -e {go}; do sleep 0.01; done; sleep {mark} & touch {on}; wait"
    await bench.bash(f"({job}) &")
    await begin(
        bench, f"touch {go}; until test -e {on}; do sleep 0.01; done; sleep 0.5; echo on; cat"
    )
    await until(bench, "on")

    result = await bench.use("bash_kill")

    assert result.meta.exit_code == 143, result
    assert len(alive(mark)) == 1


async def test_a_command_that_ignores_the_signal_goes_on_until_it_is_killed(bench: Bench) -> None:
    await bench.bash("before=1")
    mark = f"{uuid.uuid4().int % 10**9}.5"
    await begin(bench, f"trap '' TERM; setsid sleep {mark} & while :; do sleep {mark}; done")

    ignored = await bench.use("bash_kill")
    killed = await bench.use("bash_kill", signal="KILL")

    assert ignored.outcome is Outcome.STILL_RUNNING
    assert "KILL ends it for certain" in ignored.content
    assert killed.outcome is Outcome.OK
    assert "[killed: sleep (2)]" in killed.content
    assert alive(mark) == []
    assert (await bench.bash("echo $before")).content == "1"


async def test_a_stopped_command_can_be_ended(bench: Bench) -> None:
    await begin(bench, "bash -c 'kill -STOP $$'")

    assert (await bench.use("bash_kill")).meta.exit_code == 143


async def test_a_process_that_outlives_its_command_after_a_signal_is_killed(bench: Bench) -> None:
    mark = f"{uuid.uuid4().int % 10**9}.5"
    await begin(bench, f"(trap '' TERM; exec sleep {mark}) & wait")

    result = await bench.use("bash_kill")

    assert "[1 of its processes went on and were killed]" in result.content
    await bench.wait_until(lambda: alive(mark) == [])


async def test_the_hard_timeout_holds_while_nobody_waits(bench: Bench) -> None:
    mark = f"{uuid.uuid4().int % 10**9}.5"
    command = f"echo some; (setsid sleep {mark} &); sleep 60"
    begun = await bench.bash(command, timeout=0.2, hard_timeout_s=1.5)

    ended = await bench.use("bash_output", wait=20)

    assert begun.outcome is Outcome.STILL_RUNNING
    assert ended.outcome is Outcome.TIMED_OUT
    assert ended.content.startswith("[timed out after 1.5 s]\n[the command and everything")
    assert alive(mark) == []


async def test_a_soft_timeout_beyond_the_hard_one_is_none(bench: Bench) -> None:
    result = await bench.bash("sleep 60", timeout=1000, hard_timeout_s=0.3)

    assert result.outcome is Outcome.TIMED_OUT


async def test_cancelling_a_poll_ends_the_command(bench: Bench) -> None:
    mark = f"{uuid.uuid4().int % 10**9}.5"
    await begin(bench, f"sleep {mark}")
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    poll = asyncio.create_task(bench.use("bash_output", wait=60, stop=stop))

    stop.set_result(None)

    assert (await poll).outcome is Outcome.KILLED
    assert alive(mark) == []


async def test_a_shell_that_dies_while_left_running_is_told_at_the_next_poll(bench: Bench) -> None:
    await bench.bash("kept=1")
    await begin(bench, "sleep 0.4; kill -9 $$")

    result = await bench.use("bash_output", wait=20)

    assert (result.outcome, result.meta.exit_code) == (Outcome.KILLED, 137)
    assert "started again with" in result.content
    assert (await bench.bash("echo $kept")).content == "1"


async def test_a_slow_drip_is_given_bit_by_bit(bench: Bench) -> None:
    """There is no timer that looks for changes: only the two timeouts count."""
    await begin(bench, "for n in 1 2 3; do read; echo drip $n; done")
    said = [(await bench.use("bash_stdin", key="enter")).content for _ in range(3)]

    assert [text.splitlines()[0] for text in said] == ["drip 1", "drip 2", "drip 3"]


async def test_a_flood_between_two_polls_is_cut_and_its_file_is_bounded(bench: Bench) -> None:
    await begin(bench, "read; head -c 100000 /dev/zero | tr '\\0' x; read; echo; echo end")
    flood = await bench.use("bash_stdin", key="enter")
    calm = await bench.use("bash_stdin", key="enter")

    assert flood.meta.truncated
    assert flood.meta.spill
    assert "70000 bytes left out here; all of it is in" in flood.content
    assert (calm.content, calm.meta.truncated) == ("\nend", False)
    assert (bench.config.workspace / flood.meta.spill).stat().st_size == 100_005


async def test_what_was_left_running_is_told_when_the_container_was_lost(bench: Bench) -> None:
    await bench.bash("kept=1; sleep 60 & sleep 0.05")
    await begin(bench, "echo waits; cat")
    bench.shell.left = None  # as if the runner had been killed: nothing is tidied up
    again = Shell(bench.config, bench.children, os.environ)
    second = Bench(bench.config, bench.children, again)

    try:
        polled = await second.use("bash_output")
        first = await second.bash("echo $kept")
        later = await second.bash("echo on")
    finally:
        await again.close()

    gone = "[this command was still running and is gone: echo waits; cat]"
    assert polled.content == f"no command is running\n{gone}"
    assert first.content.startswith("1\n[the sandbox's container was restarted")
    assert "[background jobs that were running and are gone: sleep 60]" in first.content
    assert later.content == "on"


async def test_a_command_that_ended_is_not_called_lost(bench: Bench) -> None:
    await begin(bench, "read")
    await bench.use("bash_stdin", key="enter")
    await bench.shell.close()
    second = Bench(bench.config, bench.children, Shell(bench.config, bench.children, os.environ))

    try:
        assert "still running" not in (await second.bash("true")).content
    finally:
        await second.shell.close()


async def test_no_terminal_is_anybodys_controlling_one(bench: Bench) -> None:
    """It would hang up on the shell at the end of the first command (tty_nr in proc(5))."""
    result = await bench.bash("test -t 0 && echo a terminal; read -a stat </proc/$$/stat")

    assert result.content == "a terminal"
    assert (await bench.bash("echo ${stat[6]}")).content == terminal_of_this_process()


def terminal_of_this_process() -> str:
    """Number of the terminal that the tests were started on; 0 if none."""
    return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[4]


async def test_a_program_of_its_own_session_does_not_take_the_shell_with_it(bench: Bench) -> None:
    """It becomes the terminal's owner, and hangs up at the command's end, alone."""
    await bench.bash("x=1; setsid bash -c 'exec 3<>/proc/$PPID/fd/0; sleep 0.1' & wait")

    assert (await bench.bash("echo $x")).content == "1"


@pytest.fixture
async def no_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    def refuse() -> tuple[int, int]:
        raise OSError("no pseudo-terminals here")

    monkeypatch.setattr(os, "openpty", refuse)
    async with open_bench(tmp_path) as bench:
        yield bench


async def test_without_pseudo_terminals_the_input_is_empty_and_that_is_said(
    no_terminals: Bench,
) -> None:
    read = await no_terminals.bash("cat; echo end of input")
    await begin(no_terminals, "sleep 60")
    typed = await no_terminals.use("bash_stdin", text="a\n")

    assert read.content == "end of input"
    assert "no input here (/dev/null)" in typed.content


async def test_many_commands_left_running_leave_no_descriptors_behind(bench: Bench) -> None:
    await bench.bash("true")
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(10):
        await begin(bench, "read; exit 1")
        await bench.use("bash_stdin", key="enter")

    assert len(os.listdir("/proc/self/fd")) <= before + 2
