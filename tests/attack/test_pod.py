"""What is done to the pod from outside or by its own appetite: told, survived, never doubled."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from ratchet.core.conditions import Reason
from ratchet.core.config import Resources
from ratchet.core.facts import SandboxRef
from ratchet.ports import SandboxGone, SandboxPending

from tests.attack.conftest import ON_ONE_LOOP, shape
from tests.e2e.box import Box, Boxes, shown

pytestmark = ON_ONE_LOOP

GONE_WITHIN_S = 60


async def pods(box: Box) -> list[str]:
    """The pods of a task that are there."""
    return await box.kubectl.names("pod", f"ratchet.run/task-uid={box.task.uid}")


async def nothing_runs(box: Box) -> None:
    """A pod that is gone may be seen for a moment longer; nothing runs in it and none follows."""
    selector = f"ratchet.run/task-uid={box.task.uid}"
    listed = await box.kubectl.run("get", "pod", "-l", selector, "-o", "json")
    for pod in json.loads(listed)["items"]:
        statuses = pod["status"]["containerStatuses"]
        assert not [status for status in statuses if "running" in status["state"]], statuses
    await box.kubectl.wait_gone("pod", selector, GONE_WITHIN_S)


async def test_a_deleted_pod_is_gone_for_good_and_not_made_again(fresh: Box) -> None:
    await fresh.bash("echo work")
    await fresh.kubectl.run("delete", "pod", fresh.pod, "--wait=false")
    gone = await fresh.until(SandboxGone, GONE_WITHIN_S)
    assert fresh.pod in gone.message or "gone" in gone.message
    await nothing_runs(fresh)


async def test_a_pod_deleted_by_force_in_mid_call_ends_the_call(fresh: Box) -> None:
    calling = asyncio.create_task(fresh.bash("sleep 50", timeout=55))
    await asyncio.sleep(1)
    await fresh.kubectl.run("delete", "pod", fresh.pod, "--force", "--grace-period=0")
    done, _ = await asyncio.wait([calling], timeout=GONE_WITHIN_S)
    if done and calling.exception() is None:
        assert calling.result().outcome in ("Unknown", "Killed"), shown(calling.result())
    calling.cancel()
    await fresh.until(SandboxGone, GONE_WITHIN_S)


async def test_an_evicted_pod_is_told_as_one(fresh: Box) -> None:
    await fresh.bash("true")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": fresh.pod, "namespace": fresh.kubectl.namespace},
    }
    path = f"/api/v1/namespaces/{fresh.kubectl.namespace}/pods/{fresh.pod}/eviction"
    await fresh.kubectl.run("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    gone = await fresh.until(SandboxGone, GONE_WITHIN_S)
    assert gone.reason is Reason.EVICTED, gone
    await nothing_runs(fresh)


async def test_two_owners_at_once_make_one_pod(boxes: Boxes) -> None:
    first = await boxes.make(shape())
    second = boxes.again(first, epoch=2)
    looks = [asyncio.create_task(owner.sandbox.prepare(owner.config, owner.ref))
             for owner in (first, second) for _ in range(5)]  # fmt: skip
    await asyncio.gather(*looks, return_exceptions=True)
    await second.ready()
    assert len(await pods(second)) == 1
    await boxes.remove(second)


async def test_an_image_that_is_not_there_is_told_with_its_name(boxes: Boxes) -> None:
    box = await boxes.make(shape(image="registry.invalid/nothing:none"))
    ends = time.monotonic() + GONE_WITHIN_S
    while True:
        told = await box.until(SandboxPending)
        if "registry.invalid/nothing" in told.message and told.hopeless:
            break
        assert time.monotonic() < ends, told
        await asyncio.sleep(0.2)
    await boxes.remove(box)


async def test_a_pod_that_fits_on_no_node_says_why(boxes: Boxes) -> None:
    box = await boxes.make(
        shape(resources=Resources(requests=(("cpu", "900"),), limits=(("cpu", "900"),)))
    )
    ends = time.monotonic() + GONE_WITHIN_S
    while True:
        told = await box.until(SandboxPending)
        if "Insufficient cpu" in told.message:
            break
        assert time.monotonic() < ends, told
        await asyncio.sleep(0.2)
    await boxes.remove(box)


async def test_a_workspace_that_is_filled_beyond_its_limit_costs_the_pod_and_is_told(
    boxes: Boxes,
) -> None:
    box = await boxes.make(shape(workspace_size_limit="20Mi"))
    await box.ready()
    await box.bash("head -c 100000000 /dev/zero > filled")
    gone = await box.until(SandboxGone, 150)
    # A busy kubelet was seen to end the pod and leave no message: then the limit cannot be named.
    told = gone.reason is Reason.SANDBOX_DISK_FULL and "limit" in gone.message
    assert told or "gave no message" in gone.message, gone
    assert gone.reason in (Reason.SANDBOX_DISK_FULL, Reason.EVICTED), gone
    assert len(await pods(box)) <= 1
    await boxes.remove(box)


async def test_a_runtime_class_that_is_not_there_is_told(boxes: Boxes) -> None:
    box = await boxes.make(shape(runtime_class="there-is-none"))
    told = await box.until(SandboxPending)
    assert "there-is-none" in told.message, told
    await boxes.remove(box)


async def test_removing_a_sandbox_twice_is_no_error(fresh: Box) -> None:
    await fresh.sandbox.remove()
    await fresh.sandbox.remove()
    await fresh.kubectl.wait_gone("pod", f"ratchet.run/task-uid={fresh.task.uid}", 60)


async def test_a_pod_of_somebody_else_under_our_name_is_never_talked_to(boxes: Boxes) -> None:
    box = await boxes.make(shape())
    impostor = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": box.pod},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "c", "image": box.config.sandbox.image, "command": ["sleep", "1000"]}
            ],
        },
    }
    await box.kubectl.apply(impostor)
    told = await box.sandbox.prepare(box.config, SandboxRef(1))
    assert isinstance(told, SandboxPending) and told.hopeless, told
    assert "somebody else" in told.message
    await box.kubectl.run("delete", "pod", box.pod, "--wait=false")


@pytest.mark.parametrize("missing", ["secret", "networkpolicy"])
async def test_a_part_that_somebody_deleted_is_missed(fresh: Box, missing: str) -> None:
    await fresh.bash("true")
    await fresh.kubectl.run("delete", missing, fresh.pod)
    answer = await fresh.sandbox.prepare(fresh.config, fresh.ref)
    if missing == "secret":
        # What is known is used on; a new owner says what is missing.
        assert answer is not None
    else:
        assert (await fresh.bash("echo alive")).content == "alive"
