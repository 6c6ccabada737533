"""The persistent shell keeps its state from call to call, and when its process is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner.shell import Shell

from tests.unit.sandbox.runners import Bench, open_bench

SET = """
mkdir -p sub && cd sub
export EXPORTED=$'two\\nlines'
plain=here
declare -A map=([a b]=c)
list=(x "y z")
hello() { echo "hello $1 ${map[a b]}"; }
matches() { [[ $1 == @(yes|no) ]]; }
alias shout='echo LOUD'
set -o pipefail
set -f
shopt -s extglob nullglob
shopt -u sourcepath
umask 027
"""
SHOW = """
echo "dir ${PWD##*/}"
echo "$EXPORTED" | tail -1; bash -c 'echo child $EXPORTED'
echo "plain $plain map ${map[a b]} list ${#list[@]} ${list[1]}"
hello you
matches yes && echo matched
shout
false | true || echo pipefail
echo *
shopt extglob nullglob sourcepath
umask
"""


async def shown(bench: Bench) -> str:
    return (await bench.bash(SHOW)).content


async def test_state_persists_from_call_to_call(bench: Bench) -> None:
    assert (await bench.bash(SET)).outcome is Outcome.OK

    assert (await shown(bench)).splitlines() == [
        "dir sub", "lines", "child two lines", "plain here map c list 2 y z", "hello you c", "matched",
        "LOUD", "pipefail", "*",
        "extglob        \ton", "nullglob       \ton", "sourcepath     \toff", "0027",
    ]  # fmt: skip


async def test_a_killed_shell_comes_back_as_it_was_before_the_command(bench: Bench) -> None:
    await bench.bash(SET)
    before = await shown(bench)

    killed = await bench.bash("cd /; plain=gone; kill -9 $$")
    after = await shown(bench)

    assert killed.outcome is Outcome.KILLED
    assert killed.meta.exit_code == 137
    assert "started again" in killed.content
    assert after == before


async def test_a_command_that_exits_is_answered_with_its_code_and_keeps_what_it_set(
    bench: Bench,
) -> None:
    result = await bench.bash("mkdir d; cd d; kept=1; helper() { echo helped; }; exit 3")

    assert (result.outcome, result.meta.exit_code) == (Outcome.FAILED, 3)
    assert "this ended the shell" in result.content
    assert (await bench.bash("echo ${PWD##*/} $kept; helper")).content == "d 1\nhelped"


async def test_exit_zero_is_a_success_that_says_the_shell_ended(bench: Bench) -> None:
    result = await bench.bash("echo done; exit 0")

    assert result.outcome is Outcome.OK
    assert result.content.startswith("done\n[this ended the shell")


async def test_exec_replaces_the_shell_and_counts_as_killed(bench: Bench) -> None:
    await bench.bash("before=1")

    result = await bench.bash("cd /; exec true")

    assert (result.outcome, result.meta.exit_code) == (Outcome.KILLED, 0)
    assert (await bench.bash("echo $before ${PWD##*/}")).content == "1 workspace"


async def test_errexit_ends_the_command_at_the_first_failure(bench: Bench) -> None:
    result = await bench.bash("set -e; v=1; echo one; false; echo two")

    assert (result.outcome, result.meta.exit_code) == (Outcome.FAILED, 1)
    assert result.content.startswith("one\n[")
    assert (await bench.bash("echo v$v; false; echo on")).content == "v1\non"


async def test_errexit_holds_for_one_call_only(bench: Bench) -> None:
    await bench.bash("set -e; true")

    assert (await bench.bash("false; echo still here")).content == "still here"


async def test_nounset_persists_and_an_unset_variable_ends_the_command(bench: Bench) -> None:
    await bench.bash("set -u")

    result = await bench.bash('echo "$missing"; echo not reached')

    assert result.outcome is Outcome.FAILED
    assert "missing: unbound variable" in result.content
    assert "not reached" not in result.content
    assert (await bench.bash("echo alive")).content == "alive"


async def test_readonly_variables_are_restored_as_readonly(bench: Bench) -> None:
    await bench.bash("readonly fixed=1; exit 0")

    result = await bench.bash("fixed=2")

    assert "readonly variable" in result.content
    assert (await bench.bash("echo $fixed")).content == "1"


async def test_a_shell_that_dies_between_calls_is_noticed_and_restored(bench: Bench) -> None:
    await bench.bash("mine=1")
    pid = int((await bench.bash("echo $$")).content)

    await bench.bash("(sleep 0.05; kill -9 $$) & true")
    await bench.wait_until(lambda: not os.path.exists(f"/proc/{pid}"))
    result = await bench.bash("echo $mine")

    assert result.content == (
        "1\n[the shell had died since the last command and was started again with the state "
        "saved then]"
    )


async def test_state_outlives_the_runners_container_and_the_model_is_told(
    bench: Bench,
) -> None:
    await bench.bash(SET)
    before = await shown(bench)
    await bench.shell.close()
    again = Shell(bench.config, bench.children, os.environ)
    second = Bench(bench.config, bench.children, again)

    try:
        first = await second.bash("env | grep -c SANDBOX_SHELL")
        after = await shown(second)
        killed = await second.bash("env -i setsid sleep 60 & setsid sleep 60 & kill -9 $$")
    finally:
        await again.close()

    assert first.content.startswith("1\n[the sandbox's container was restarted")
    assert after == before
    assert killed.outcome is Outcome.KILLED


@pytest.mark.parametrize("text", ["", "{", "[]", '{"options": 1}', "[" * 100_000])
async def test_a_state_file_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    state = tmp_path / "workspace" / ".ratchet" / "shell-state"
    state.parent.mkdir(parents=True)
    state.write_text(text)

    async with open_bench(tmp_path) as bench:
        assert (await bench.bash("echo new")).content == "new"


async def test_a_shell_that_is_spoilt_for_good_can_be_had_anew(bench: Bench) -> None:
    await bench.bash("echo() { command echo; }; command() { echo; }")

    gone = await bench.bash("/bin/rm .ratchet/shell-state; exec /bin/true")
    fresh = await bench.bash("echo well")

    assert gone.outcome is Outcome.KILLED
    assert (
        fresh.content == "well\n[the saved state was deleted: this is a new shell in the workspace]"
    )


async def test_a_directory_that_is_gone_is_replaced_by_the_workspace(bench: Bench) -> None:
    await bench.bash("mkdir gone; cd gone; true")
    await bench.bash("rmdir ../gone; kill -9 $$")

    assert (await bench.bash("pwd")).content == str(bench.config.workspace)


async def test_the_shell_says_where_it_has_no_shell(tmp_path: Path) -> None:
    async with open_bench(tmp_path, sh=Path("/nonexistent/sh")) as bench:
        result = await bench.bash("true")

    assert result.outcome is Outcome.FAILED
    assert "was not run" in result.content


@pytest.mark.parametrize("name", ["RATCHET_TASK_UID", "KUBERNETES_SERVICE_HOST", "PYTHONHOME"])
async def test_nothing_of_the_pod_is_in_the_commands_environment(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "secret-of-the-pod")
    async with open_bench(tmp_path) as bench:
        result = await bench.bash("env")

    assert "secret-of-the-pod" not in result.content
    assert f"HOME={bench.config.home}" in result.content.splitlines()
    assert "CI=true" in result.content.splitlines()


async def test_the_variables_of_the_sandbox_class_are_there_and_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "RATCHET_ENV_MINE": "a b", "RATCHET_ENV_CI": "no", "RATCHET_ENV_EMPTY": "",
        "RATCHET_ENV_SANDBOX_SHELL": "faked", "OTHER": "not the class's",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    async with open_bench(tmp_path) as bench:
        lines = (await bench.bash("env; exit 0")).content.splitlines()

    assert {"MINE=a b", "CI=no", "EMPTY="} <= set(lines)
    assert "SANDBOX_SHELL=faked" not in lines
    assert not [line for line in lines if line.startswith(("OTHER=", "RATCHET_"))]
