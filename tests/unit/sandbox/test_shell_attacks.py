"""What commands may do to the shell they run in, by accident or on purpose."""

from __future__ import annotations

import asyncio
import os
import time
import uuid

import pytest
from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner.output import INLINE_LIMIT, SPILL_LIMIT

from tests.unit.sandbox.runners import Bench, alive

TAMPERING = {
    "prompt": "PROMPT_COMMAND='echo prompt'; PS1='> '; PS4='$(echo gotcha) '",
    "trap signals": "trap '' INT TERM HUP; trap 'echo trapped' USR1",
    "trap exit": "trap 'echo my own exit trap' EXIT",
    "trap debug": "trap 'echo debug >/dev/null' DEBUG; trap 'echo err >/dev/null' ERR",
    "functions": "cd() { echo no; }; printf() { echo no; }; echo() { command echo \"$@\"; }",
    "builtin": "builtin() { echo no; }; command() { echo no; }; declare() { echo no; }",
    "special builtins": "trap() { :; }; set() { :; }; unset() { :; }; export() { :; }",
    "readonly functions": "builtin() { echo no; }; readonly -f builtin",
    "aliases": "alias builtin=false set=false trap=false declare=false",
    "disabled builtins": "enable -n printf declare alias trap",
    "close output": "exec >&- 2>&-",
    "move output": "exec >/dev/null 2>&1",
    "close input": "exec <&-",
    "positional": "set -- a b c; shift",
    "trace": "set -x",
    "verbose": "set -v",
    "posix": "set -o posix",
    "posix variable": "readonly POSIXLY_CORRECT=",
    "field separator": "IFS=0123456789",
    "no globbing": "set -f; GLOBIGNORE='*'",
    "path": "PATH=",
    "shell variables": "unset PWD HOME PATH; SHELLOPTS_=1; BASH_ENV=/nonexistent; ENV=/nonexistent",
    "terminal": "stty -echo raw",
    "errexit": "set -e; true",
    "job control": "set -m; sleep 30 & true",
    "no clobber": "set -o noclobber",
    "limits": "ulimit -n 20; ulimit -c 0",
    "scratch deleted": "rm -rf .ratchet",
    "everything deleted": "rm -rf ./* ./.[!.]*",
    "descriptors 3 to 9": "for n in 3 4 5 6 7 8 9; do eval \"exec $n>/dev/null\"; done",
}  # fmt: skip


@pytest.mark.parametrize("command", TAMPERING.values(), ids=TAMPERING.keys())
async def test_the_next_command_still_runs_and_is_reported(bench: Bench, command: str) -> None:
    await bench.bash("marker=kept")

    first = await bench.bash(command, hard_timeout_s=10)
    second = await bench.bash("\\builtin echo $marker; (exit 5)", hard_timeout_s=10)

    assert first.outcome in (Outcome.OK, Outcome.FAILED), first
    assert "kept" in second.content or "no" in second.content, second
    assert (second.outcome, second.meta.exit_code) == (Outcome.FAILED, 5)


async def test_a_shell_with_redefined_builtins_still_saves_its_state(bench: Bench) -> None:
    await bench.bash("cd() { echo fake; }; builtin() { echo fake; }; x=1; kill -9 $$")
    await bench.bash("cd() { echo fake; }; builtin() { echo fake; }; x=1")
    await bench.bash("kill -9 $$")

    assert (await bench.bash("echo $x; cd /; type -t builtin")).content == "1\nfake\nbuiltin"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo 'never closed", "unexpected EOF"),
        ("if true; then", "syntax error"),
        ("cat <<END\ntext", "text"),
        (")", "syntax error"),
    ],
)
async def test_a_torn_command_is_an_error_and_not_the_end_of_the_shell(
    bench: Bench, command: str, says: str
) -> None:
    await bench.bash("x=1")

    result = await bench.bash(command)

    assert says in result.content
    assert (await bench.bash("echo $x")).content == "1"


async def test_a_command_with_nul_is_refused_with_a_reason(bench: Bench) -> None:
    result = await bench.bash("echo a\0b")

    assert result.outcome is Outcome.FAILED
    assert "NUL" in result.content


async def test_a_command_of_a_megabyte_works(bench: Bench) -> None:
    result = await bench.bash(f"text='{'x' * 1_000_000}'\necho ${{#text}}")

    assert result.content == "1000000"


async def test_a_background_job_sees_the_end_of_its_input_when_its_command_ends(
    bench: Bench,
) -> None:
    await bench.bash("(cat; echo over > done) & true")

    await bench.wait_until((bench.config.workspace / "done").exists)


async def test_a_heredoc_of_a_megabyte_works(bench: Bench) -> None:
    line = "y" * 99
    text = "\n".join([line] * 10_000)

    result = await bench.bash(f"wc -c <<'END'\n{text}\nEND")

    assert result.content == "1000000"


async def test_a_restricted_shell_is_replaced_and_keeps_its_state(bench: Bench) -> None:
    first = await bench.bash("kept=1; set -r")

    assert "restricted one" in first.content
    assert (await bench.bash("echo $kept > out; cat out")).content == "1"


async def test_processes_under_a_stop_signal_are_killed_at_the_limit(bench: Bench) -> None:
    mark = f"{uuid.uuid4().int % 10**9}.5"

    result = await bench.bash(
        f"sleep {mark} & kill -STOP $!; setsid sleep {mark} & wait", hard_timeout_s=1
    )

    assert result.outcome is Outcome.TIMED_OUT
    assert alive(mark) == []


async def test_a_terminal_made_raw_by_one_command_is_not_so_for_the_next(bench: Bench) -> None:
    await bench.bash("stty raw -echo")

    assert "-icanon" not in (await bench.bash("stty -a")).content


async def test_a_background_job_holds_neither_the_call_nor_the_next_result(bench: Bench) -> None:
    began = time.monotonic()
    await bench.bash("(while :; do echo noise; sleep 0.02; done) & echo $! > pid")
    assert time.monotonic() - began < 5
    pid = int((bench.config.workspace / "pid").read_text())

    await bench.bash("sleep 0.1")
    second = await bench.bash("sleep 0.1; echo mine")

    assert second.content == "mine"
    os.kill(pid, 0)  # and it is still alive: nothing closed its output


async def test_a_background_flood_after_its_call_does_not_disturb_the_next(bench: Bench) -> None:
    await bench.bash("yes & true")

    assert (await bench.bash("echo mine")).content == "mine"


async def test_output_that_looks_like_reports_changes_nothing(bench: Bench) -> None:
    spoof = "".join(f"{kind}_{'0' * 32}: 0\\n" for kind in "exs")
    own = r"declare -p | head -c 100000; env; cat /proc/self/environ; trap -p"

    result = await bench.bash(f"printf '{spoof}' | tee /dev/stderr; {own}; sleep 0.05; (exit 9)")

    assert result.meta.exit_code == 9


async def test_a_report_of_an_earlier_call_does_not_end_a_later_one(bench: Bench) -> None:
    """The trap that holds a call's nonce can be read; by the next call it is worth nothing."""
    told = (await bench.bash("trap -p EXIT | grep -o 'x_[0-9a-f]*' | head -1")).content

    result = await bench.bash(f"echo 'bash: {told}: 0' >&63; sleep 0.05; (exit 4)")

    assert result.meta.exit_code == 4


async def test_a_flood_is_bounded_and_still_times_out(bench: Bench) -> None:
    began = time.monotonic()
    result = await bench.bash("echo first; yes", hard_timeout_s=1)

    assert time.monotonic() - began < 10
    assert result.outcome is Outcome.TIMED_OUT
    assert len(result.content) < INLINE_LIMIT + 1000
    assert result.content.startswith("first\ny\ny\n")
    assert result.meta.truncated
    assert result.meta.spill
    assert (bench.config.workspace / result.meta.spill).stat().st_size == SPILL_LIMIT


async def test_one_huge_line_is_cut_in_the_middle_and_kept_whole(bench: Bench) -> None:
    result = await bench.bash("echo start; head -c 200000 /dev/zero | tr '\\0' x; echo; echo end")

    assert result.content.startswith("start\nxxx")
    assert result.content.endswith("xxx\nend")
    assert "bytes left out here; all of it is in" in result.content
    assert result.meta.spill
    assert (bench.config.workspace / result.meta.spill).stat().st_size == 200_011


async def test_bytes_that_are_no_text_are_marked(bench: Bench) -> None:
    result = await bench.bash(r"printf 'ok \xff\xfe \xed\xa0\x80 end\n'")

    assert result.meta.not_utf8
    assert result.content.startswith("ok �")
    result.content.encode()  # clean UTF-8: no lone surrogates


async def test_a_hard_timeout_returns_what_there_was_and_kills_daemons_too(bench: Bench) -> None:
    await bench.bash("before=1")
    mark = f"{uuid.uuid4().int % 10**9}.5"
    daemons = f"""
        setsid sleep {mark} &
        (setsid sh -c 'sleep {mark} & exec sleep {mark}' &)
        nohup sleep {mark} >/dev/null 2>&1 &
        (trap '' TERM HUP; sleep {mark}) & disown
        echo partial; before=2; sleep 60
    """
    result = await bench.bash(daemons, hard_timeout_s=1)

    assert result.outcome is Outcome.TIMED_OUT
    assert result.content.startswith("partial\n[timed out after 1 s]")
    assert alive(mark) == []
    assert (await bench.bash("echo $before")).content == "1"


async def test_a_stopped_shell_is_killed_at_its_limit(bench: Bench) -> None:
    result = await bench.bash("kill -STOP $$", hard_timeout_s=1)

    assert result.outcome is Outcome.TIMED_OUT
    assert (await bench.bash("echo back")).content == "back"


async def test_a_cancelled_command_is_killed_and_keeps_its_output(bench: Bench) -> None:
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    started = bench.config.workspace / "started"
    running = asyncio.create_task(bench.bash("echo some; touch started; sleep 60", stop=stop))
    await bench.wait_until(started.exists)

    stop.set_result(None)
    result = await running

    assert result.outcome is Outcome.KILLED
    assert result.content.startswith("some\n[cancelled]")


async def test_a_second_command_meanwhile_is_denied(bench: Bench) -> None:
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(bench.bash("sleep 60", stop=stop))
    await bench.wait_until(lambda: bench.shell.busy)

    denied = await bench.bash("echo no")
    stop.set_result(None)
    await running

    assert denied.outcome is Outcome.DENIED
    assert denied.content.startswith("busy: ")


async def test_a_signal_from_inside_a_background_job_to_the_group_is_survived(
    bench: Bench,
) -> None:
    await bench.bash("x=1")

    result = await bench.bash("kill -KILL 0")

    assert result.outcome is Outcome.KILLED
    assert (await bench.bash("echo $x")).content == "1"


async def test_commands_run_even_where_the_workspace_takes_no_files(bench: Bench) -> None:
    bench.config.private.write_text("a file where the runner's folder should be")

    assert (await bench.bash("echo still here; rm .ratchet")).content == "still here"


async def test_old_spill_files_make_room_for_new_ones(bench: Bench) -> None:
    for _ in range(20):
        await bench.bash("head -c 40000 /dev/zero")

    names = sorted(path.name for path in bench.config.spill.iterdir())
    assert len(names) == 16
    assert not any(name.endswith("-1-1.txt") for name in names)


async def test_many_calls_leave_no_descriptors_behind(bench: Bench) -> None:
    await bench.bash("true")
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(20):
        await bench.bash("echo x; exit 1")

    assert len(os.listdir("/proc/self/fd")) <= before + 2
