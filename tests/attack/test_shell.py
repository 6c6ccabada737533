"""Commands that work against the shell that runs them: the next command still runs and is told well."""

from __future__ import annotations

import asyncio
import time

import pytest
from ratchet.core.facts import Receipt

from tests.attack.conftest import ON_ONE_LOOP, SHORT_S
from tests.e2e.box import Box, shown
from tests.unit.sandbox.test_shell_attacks import TAMPERING

pytestmark = ON_ONE_LOOP

GRACE_S = 20
"""What a call may take beyond its hard timeout before it counts as hung."""


async def still_works(box: Box) -> None:
    """A command runs, and its exit code is its own."""
    after = await box.bash("\\builtin echo alive; (exit 5)")
    assert "alive" in after.content or "no" in after.content, shown(after)
    assert after.exit_code == 5, shown(after)


LASTING = ("readonly functions", "posix variable")
"""What cannot be undone in a shell that goes on."""
UNDONE = {name: command for name, command in TAMPERING.items() if name not in LASTING}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# In POSIX mode no function stands before a special builtin.
UNDO = rf"""
POSIXLY_CORRECT=1
\unset -f builtin
\unset POSIXLY_CORRECT
builtin unalias -a
builtin enable printf declare alias trap
builtin unset -f command echo cd printf declare trap set unset export
builtin set +xvfeumC +o posix
builtin unset GLOBIGNORE PROMPT_COMMAND IFS BASH_ENV ENV
builtin export PATH={PATH}
builtin cd /workspace
"""


@pytest.mark.parametrize("command", UNDONE.values(), ids=UNDONE.keys())
async def test_tampering(box: Box, command: str) -> None:
    await tampered(box, command)
    await box.bash(UNDO)
    await box.bash("kill -9 $$")  # traps, limits and descriptors go with the process
    left = await box.bash("declare -F; alias -p; echo $PATH; type -t echo")
    assert left.content.splitlines()[-2:] == [PATH, "builtin"], shown(left)
    assert len(left.content.splitlines()) <= 3, shown(left)  # the first tells of the lost shell


@pytest.mark.parametrize("command", [TAMPERING[name] for name in LASTING], ids=LASTING)
async def test_lasting_tampering(fresh: Box, command: str) -> None:
    await tampered(fresh, command)


async def tampered(box: Box, command: str) -> None:
    first = await box.bash(command)
    assert first.outcome in ("Ok", "Failed"), shown(first)
    await still_works(box)


ENDS = {
    "exit": "exit 3",
    "exec_true": "exec true",
    "exec_missing": "exec /nonexistent",
    "errexit": "set -e; false; echo not reached",
    "nounset": "set -u; echo $not_there_at_all; echo not reached",
    "kill_own_shell": "kill -9 $$",
    "kill_everything": "kill -9 -1",
    "kill_own_group": "kill -KILL 0",
    "segfault": "kill -SEGV $$",
    "unterminated_quote": "echo 'never closed",
    "unterminated_heredoc": "cat <<END\ntext",
    "unbalanced": ") } fi done",
    "half_a_loop": "while true; do",
    "deep_nesting": "x=" + "$(echo " * 60 + "1" + ")" * 60,
    "heredoc_of_60_kb": "cat >/dev/null <<END\n" + "x" * 60_000 + "\nEND",
    "report_look_alike": "for n in 3 4 5 60 61 62 63; do echo 'e_0000: 0' >&$n; done 2>/dev/null",
    "trap_on_exit": "trap 'exec sleep 1000' EXIT; true",
}


@pytest.mark.parametrize("command", ENDS.values(), ids=ENDS.keys())
async def test_a_command_ends_with_an_outcome_and_the_shell_goes_on(box: Box, command: str) -> None:
    first = await asyncio.wait_for(box.bash(command), 60 + GRACE_S)
    assert first.outcome in ("Ok", "Failed", "Killed", "TimedOut", "StillRunning"), shown(first)
    if first.outcome == "StillRunning":
        await box.use("bash_kill", signal="KILL")
    await still_works(box)


async def test_a_command_with_a_null_byte_is_refused_with_a_reason(box: Box) -> None:
    refused = await box.bash("echo a\0b")
    assert refused.outcome == "Failed" and "NUL" in refused.content, shown(refused)


async def test_aliases_functions_and_variables_outlive_the_shell(box: Box) -> None:
    await box.bash("alias hi='echo hi from an alias'; f() { echo f; }; export X=1; cd /tmp")
    await box.bash("kill -9 $$")
    after = await box.bash("hi; f; echo $X; pwd")
    assert after.content.splitlines()[-4:] == ["hi from an alias", "f", "1", "/tmp"], shown(after)
    await box.bash("cd /workspace; unalias hi; unset -f f; unset X")


async def test_a_command_that_reads_input_does_not_hang_the_call(box: Box) -> None:
    begun = time.monotonic()
    waiting = await box.bash("read line; echo got $line", timeout=2)
    assert time.monotonic() - begun < GRACE_S
    assert waiting.outcome == "StillRunning", shown(waiting)
    end = await box.use("bash_stdin", text="hello\n")
    if end.outcome == "StillRunning":
        end = await box.use("bash_output", wait=10)
    assert (end.outcome, end.content) == ("Ok", "got hello"), shown(end)


async def test_a_second_command_meanwhile_is_denied_and_does_not_run(box: Box) -> None:
    first = await box.bash("sleep 60", timeout=1)
    assert first.outcome == "StillRunning", shown(first)
    second = await box.bash("touch ran-anyway")
    assert second.outcome == "Denied", shown(second)
    await box.use("bash_kill", signal="KILL")
    await box.use("bash_output", wait=10)
    after = await box.bash("ls ran-anyway")
    assert after.outcome == "Failed", shown(after)


async def past_the_limit(box: Box, command: str) -> Receipt:
    """The end of a command that is to be killed at its hard timeout."""
    begun = time.monotonic()
    receipt = await box.bash(command, timeout=SHORT_S)
    while receipt.outcome == "StillRunning":
        receipt = await box.use("bash_output", wait=10)
    assert time.monotonic() - begun < SHORT_S + GRACE_S
    return receipt


LONG = {
    "sleep": "sleep 1000",
    "ignores_signals": "trap '' INT TERM HUP QUIT; while :; do sleep 1; done",
    "stopped": "kill -STOP $$",
    "stopped_child": "sleep 1000 & kill -STOP $!; wait",
    "busy": "while :; do :; done",
    "own_session": "setsid sleep 1000; sleep 1000",
    "waits_for_a_pipe": "mkfifo pipe; cat pipe",
}


@pytest.mark.parametrize("command", LONG.values(), ids=LONG.keys())
async def test_the_hard_timeout_ends(short: Box, command: str) -> None:
    receipt = await past_the_limit(short, command)
    assert receipt.outcome == "TimedOut", shown(receipt)
    await still_works(short)


async def test_daemons_do_not_outlive_the_hard_timeout(short: Box) -> None:
    daemons = (
        "setsid sleep 7777 & (setsid sh -c 'sleep 7777 & exec sleep 7777' &) ; "
        "nohup sleep 7777 >/dev/null 2>&1 & (trap '' TERM HUP; sleep 7777) & disown -a; "
        "touch daemons-begun; sleep 1000"
    )
    receipt = await past_the_limit(short, daemons)
    assert receipt.outcome == "TimedOut", shown(receipt)
    left = await short.bash("ls daemons-begun; grep -al sleep.7777 /proc/[0-9]*/cmdline; true")
    assert left.content.strip() == "daemons-begun", shown(left)


async def test_a_daemon_holds_neither_its_call_nor_the_next_result(box: Box) -> None:
    begun = time.monotonic()
    await box.bash("(while :; do echo noise; sleep 0.1; done) &")
    second = await box.bash("sleep 1; echo mine")
    assert time.monotonic() - begun < GRACE_S
    assert second.content == "mine", shown(second)
    await box.bash("kill %1 2>/dev/null; pkill -f noise; true")


async def test_the_nonce_of_one_call_does_not_end_the_next(box: Box) -> None:
    told = (await box.bash("trap -p EXIT | grep -o '[a-z]_[0-9a-f]*' | head -1")).content
    lines = " ".join(f"echo 'bash: {told}: 0' >&{n} 2>/dev/null;" for n in (1, 2, 60, 61, 62, 63))
    spoofed = await box.bash(f"{lines} sleep 0.2; (exit 4)")
    assert spoofed.exit_code == 4, shown(spoofed)
