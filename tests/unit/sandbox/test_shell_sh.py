"""Images without bash: a POSIX shell serves, with the state that it can list itself."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ratchet_sandbox.protocol import Outcome

from tests.unit.sandbox.runners import Bench, open_bench

SHELLS = [pytest.param("dash", id="dash"), pytest.param("busybox", id="busybox")]


@pytest.fixture(params=SHELLS)
async def sh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"{request.param} is not installed here")
    path = tmp_path / "sh"  # busybox is the program that its name says
    path.symlink_to(found)
    async with open_bench(tmp_path, sh=path) as bench:
        yield bench


async def test_state_persists_from_call_to_call(sh: Bench) -> None:
    await sh.bash(
        "mkdir d; cd d; export A='x y'; b=1; f() { echo f-$b; }; alias q='echo Q'; set -f"
    )

    assert (await sh.bash('echo "${PWD##*/} $A"; f; q; echo *')).content == "d x y\nf-1\nQ\n*"


async def test_a_killed_shell_comes_back_with_what_it_could_save(sh: Bench) -> None:
    await sh.bash("mkdir d; cd d; export A='x y'; alias q='echo Q'; set -f; umask 027")

    killed = await sh.bash("cd /; kill -9 $$")
    after = await sh.bash('echo "${PWD##*/} $A"; q; echo *; umask')

    assert (killed.outcome, killed.meta.exit_code) == (Outcome.KILLED, 137)
    assert "functions, other variables and background processes are gone" in killed.content
    assert after.content == "d x y\nQ\n*\n0027"


async def test_a_torn_command_is_an_error_and_not_the_end_of_the_shell(sh: Bench) -> None:
    await sh.bash("x=1")

    result = await sh.bash("echo 'never closed")

    assert (result.outcome, result.meta.exit_code) == (Outcome.FAILED, 2)
    assert "nterminated quoted string" in result.content
    assert (await sh.bash("echo $x")).content == "1"


async def test_exit_ends_the_shell_and_the_next_command_finds_a_new_one(sh: Bench) -> None:
    await sh.bash("export A=1")

    result = await sh.bash("exit 3")

    assert (result.outcome, result.meta.exit_code) == (Outcome.KILLED, 3)
    assert (await sh.bash("echo $A")).content == "1"


async def test_exit_codes_and_a_hard_timeout_are_reported(sh: Bench) -> None:
    assert (await sh.bash("(exit 9)")).meta.exit_code == 9
    assert (await sh.bash("echo a; sleep 60", hard_timeout_s=1)).content.startswith("a\n[timed out")
    assert (await sh.bash("echo on")).content == "on"


async def test_digits_as_field_separators_do_not_hide_the_exit_code(sh: Bench) -> None:
    await sh.bash("IFS=0123456789")

    assert (await sh.bash("(exit 21)")).meta.exit_code == 21


async def test_a_command_left_running_is_polled_and_fed(sh: Bench) -> None:
    begun = await sh.bash("echo ask; read answer; echo got $answer; f() { echo f; }", timeout=0.3)
    result = await sh.use("bash_stdin", text="it\n")

    assert (begun.outcome, begun.content.splitlines()[0]) == (Outcome.STILL_RUNNING, "ask")
    assert (result.outcome, result.content) == (Outcome.OK, "got it")
    assert (await sh.bash("f")).content == "f"


async def test_a_signal_ends_the_command_and_with_it_what_sh_cannot_save(sh: Bench) -> None:
    await sh.bash("export A=1")
    await sh.bash("sleep 60; echo not reached", timeout=0.3)

    result = await sh.use("bash_kill")

    assert (result.outcome, result.meta.exit_code) == (Outcome.OK, 143)
    assert "not reached" not in result.content
    assert "functions, other variables and background processes are gone" in result.content
    assert (await sh.bash("echo $A")).content == "1"
