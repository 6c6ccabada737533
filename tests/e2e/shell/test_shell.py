"""In a pod of either runtime: commands left running, their terminal, their end and their memory."""

from __future__ import annotations

import pytest
from ratchet.core.config import Resources
from ratchet.core.records import Outcome

from tests.e2e.box import Boxes, shown
from tests.e2e.runtimes.conftest import RUNC, Runtime, start

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


async def test_a_command_left_running_is_polled_fed_and_ends(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime)
    begun = await box.bash("test -t 0 && echo terminal; read name; echo hi $name", timeout=1)
    assert begun.outcome == Outcome.STILL_RUNNING, shown(begun)
    assert begun.content.startswith("terminal\n"), shown(begun)
    denied = await box.bash("true")
    assert denied.outcome == Outcome.DENIED, shown(denied)
    answer = await box.use("bash_stdin", text="Ada\n")
    assert (answer.outcome, answer.content) == (Outcome.OK, "hi Ada"), shown(answer)


async def test_interrupt_stop_and_end_of_input_reach_the_command(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime)
    await box.bash("kept=1; cat; sleep 1000; echo not reached", timeout=1)
    ended = await box.use("bash_stdin", key="ctrl-d")
    assert ended.outcome == Outcome.STILL_RUNNING, shown(ended)
    stopped = await box.use("bash_stdin", key="ctrl-z")
    assert stopped.outcome == Outcome.STILL_RUNNING, shown(stopped)
    await box.use("bash_stdin", key="ctrl-z")
    interrupted = await box.use("bash_stdin", key="ctrl-c")
    assert interrupted.exit_code == 130, shown(interrupted)
    assert "not reached" not in interrupted.content
    assert (await box.bash("echo $kept")).content == "1"


async def test_a_signal_spares_the_server_of_an_earlier_command(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime)
    await box.bash("sleep 1000 & server=$!")
    await box.bash("while :; do sleep 0.3; done", timeout=1)
    ended = await box.use("bash_kill")
    assert (ended.outcome, ended.exit_code) == (Outcome.OK, 143), shown(ended)
    alive = await box.bash("kill -0 $server && echo alive")
    assert alive.content == "alive", shown(alive)


async def test_nobody_has_a_controlling_terminal(boxes: Boxes, runtime: Runtime) -> None:
    box = await start(boxes, runtime)
    receipt = await box.bash("exec 3<>/dev/tty")
    assert "/dev/tty" in receipt.content, shown(receipt)
    assert (await box.bash("echo on")).content == "on"


async def test_a_kill_says_what_the_container_knows_of_its_memory(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime)
    receipt = await box.bash("bash -c 'kill -9 $$'")
    assert receipt.exit_code == 137, shown(receipt)
    assert "killed by SIGKILL; " in receipt.content, shown(receipt)


async def test_one_process_killed_for_want_of_memory_is_told_with_the_limit(boxes: Boxes) -> None:
    """cgroup v1 kills one process; where it is v2 the kubelet has the whole container killed."""
    box = await start(boxes, RUNC, resources=Resources(limits=(("memory", "128Mi"),)))
    receipt = await box.bash("kept=1; head -c 500000000 /dev/zero | tail", timeout=60)
    assert (
        "[out of memory: the sandbox reached its limit of 128 MiB, and 1 process was killed]"
        in (receipt.content)
    ), shown(receipt)
    assert (await box.bash("echo $kept")).content == "1"


async def test_kill_everything_leaves_the_next_command_a_shell(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime)
    await box.bash("kept=1; sleep 1000 &")
    await box.bash("kill -9 -1; sleep 1")
    after = await box.bash("echo $kept; cat /proc/[0-9]*/comm | grep -c '^sleep$'; true")
    assert after.content.splitlines()[0] == "1", shown(after)
    assert after.content.splitlines()[1] == "0", shown(after)
