"""A sandbox does the same under runc and under gVisor, and survives the same."""

from __future__ import annotations

import asyncio
import platform
import time
from typing import Any

import pytest
from ratchet.core.records import Outcome

from tests.cluster import Cluster
from tests.cluster.local import machine
from tests.e2e.box import Box, Boxes, shown
from tests.e2e.runtimes.conftest import RUNC, Runtime, start

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SLEEPERS = "cat /proc/[0-9]*/comm | grep -c '^sleep$'; true"


async def test_a_sandbox_runs_on_the_kernel_of_the_runtime_that_its_class_names(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime)
    receipt = await box.bash("uname -r")
    assert receipt.outcome == Outcome.OK, shown(receipt)
    assert (receipt.content == platform.release()) is (runtime == RUNC), shown(receipt)


async def test_directory_variables_functions_and_options_stay(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime)
    first = await box.bash(
        'mkdir -p a/b && cd a/b && export COLOUR=red && greet() { echo "hi $1 $COLOUR"; }; '
        "set -o noclobber; echo new > file"
    )
    assert first.outcome == Outcome.OK, shown(first)
    again = await box.bash("pwd; greet you; echo over > file")
    assert again.outcome == Outcome.FAILED
    assert again.content.startswith("/workspace/a/b\nhi you red\n"), shown(again)
    assert "cannot overwrite" in again.content
    patch = await box.sandbox.patch()
    assert "+new\n" in patch.inline


async def test_a_command_past_the_hard_limit_is_killed_with_all_that_it_started(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime, hard_timeout_s=3)
    began = time.monotonic()
    late = await box.bash("echo begun; (setsid sleep 1000 &) ; sleep 1001 & sleep 1002")
    assert late.outcome == Outcome.TIMED_OUT, shown(late)
    assert "begun" in late.content
    assert 2.5 < time.monotonic() - began < 15
    after = await box.bash(SLEEPERS)
    assert after.outcome == Outcome.OK, shown(after)
    assert after.content.splitlines()[0] == "0", shown(after)


async def test_a_fork_bomb_ends_at_the_hard_limit_and_never_ends_the_sandbox(
    boxes: Boxes, runtime: Runtime
) -> None:
    box = await start(boxes, runtime, hard_timeout_s=20)
    bomb = await box.bash("bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 1000", timeout=20)
    assert bomb.outcome == Outcome.TIMED_OUT, shown(bomb)
    after = await box.bash("echo alive")
    assert after.content.splitlines()[0] == "alive", shown(after)
    for container in ("server", "shell"):
        assert _status(await box.object(), container)["restartCount"] == 0


async def test_what_ran_is_known_and_not_run_again_after_the_server_was_killed(
    cluster: Cluster, boxes: Boxes, runtime: Runtime
) -> None:
    _needs_our_node(cluster)
    box = await start(boxes, runtime)
    order = box.order("bash", command="echo once >> runs; cd /tmp; export KEPT=yes; echo $RANDOM")
    before = await box.sandbox.run(order)
    assert before.outcome == Outcome.OK, shown(before)
    await _kill(box, "server")
    await box.ready()
    assert await box.sandbox.run(order) == before
    after = await box.bash("wc -l < /workspace/runs; pwd; echo $KEPT")
    assert after.content.split() == ["1", "/tmp", "yes"], shown(after)


async def test_a_command_goes_on_while_the_server_is_killed(
    cluster: Cluster, boxes: Boxes, runtime: Runtime
) -> None:
    _needs_our_node(cluster)
    box = await start(boxes, runtime)
    order = box.order("bash", command="echo once >> runs; sleep 6; cat runs; echo through")
    asked = asyncio.ensure_future(box.sandbox.run(order))
    await _there(box, "runs")
    await _kill(box, "server")
    await asyncio.gather(asked, return_exceptions=True)
    await box.ready()
    receipt = await box.sandbox.run(order)
    assert receipt.outcome == Outcome.OK, shown(receipt)
    assert receipt.content.split() == ["once", "through"]


def _needs_our_node(cluster: Cluster) -> None:
    if cluster.provider != "local":
        pytest.skip("a container is killed from the node, which is ours only in a local cluster")


async def _there(box: Box, path: str) -> None:
    """Wait until a file of the workspace is there."""
    async with asyncio.timeout(30):
        while not await box.sandbox.digest(path):  # noqa: ASYNC110 - a file sets no event
            await asyncio.sleep(0.1)


async def _kill(box: Box, container: str) -> None:
    """SIGKILL a container, and wait until it is another one."""
    before = _status(await box.object(), container)
    await asyncio.to_thread(machine.kill_container, before["containerID"])
    await box.kubectl.wait_until(
        "pod",
        box.pod,
        lambda pod: _status(pod, container)["restartCount"] > before["restartCount"],
        60,
    )


def _status(pod: dict[str, Any], container: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        status for status in pod["status"]["containerStatuses"] if status["name"] == container
    )
    return found
