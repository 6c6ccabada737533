"""Sandboxes that are lost, with and without their workspace: what runs, what is told, what stays."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from ratchet.api import names
from sglang_fake import FakeSGLang, Script

from tests.cluster import Cluster
from tests.cluster.local import machine
from tests.e2e.effects import Effects
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

WITHIN_S = 240.0
RESTARTED = "container was restarted since the last command"
"""What the model is told with the first result after that."""


def bash(command: str) -> dict[str, Any]:
    """A turn that runs one command."""
    return {"reply": {"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}}


FINISH = {"reply": {"tool_calls": [{"name": "finish", "arguments": {"summary": "done"}}]}}


def script(*turns: dict[str, Any]) -> Script:
    return Script.model_validate({"conversations": [{"name": "all", "turns": list(turns)}]})


def slow(effects: Effects) -> dict[str, Any]:
    """A turn whose command says that it has begun, and would say that it has ended."""
    return bash(f"{effects.command('began')}; sleep 25; {effects.command('ended')}")


async def use_class(scene: Scene, url: str, **workspace: Any) -> None:
    """Tasks use a class with this workspace."""
    await scene.defaults(url)
    await scene.kubectl.apply(
        scene.object("SandboxClass", "default", image=scene.shell_image, workspace=workspace)
    )


async def pod_of(scene: Scene, task: str, generation: int = 1) -> str:
    uid = (await scene.kubectl.get("agenttask", task))["metadata"]["uid"]
    return names.sandbox_name(task, uid, generation)


async def seen_until_ended(scene: Scene, task: str) -> list[dict[str, Any]]:
    """All different Ready conditions of a task until it has ended, in order."""
    seen: list[dict[str, Any]] = []
    ends = time.monotonic() + WITHIN_S
    while time.monotonic() < ends:
        status = (await scene.kubectl.get("agenttask", task)).get("status", {})
        conditions = {c["type"]: c for c in status.get("conditions", ())}
        ready = conditions.get("Ready")
        if ready and (not seen or seen[-1]["reason"] != ready["reason"]):
            seen.append(ready)
        if conditions.get("Finished", {}).get("status") == "True":
            return seen
        await asyncio.sleep(0.05)
    raise AssertionError(f"{task} has not ended: {json.dumps(seen, indent=2)}")


def results(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Outcome and content of the one call of each turn."""
    turns = [r["status"]["results"] for r in records if r["spec"]["kind"] == "Turn"]
    return [(result["outcome"], result.get("content", "")) for result, *_ in turns]


async def test_work_on_a_claim_outlives_a_pod_that_is_deleted_in_mid_call(
    scene: Scene, operator: OperatorProcess, effects: Effects, volume_claim: dict[str, str]
) -> None:
    plan = script(
        bash("export WORD=kept; echo $WORD > work.txt"),
        slow(effects),
        bash("cat work.txt; echo $WORD"),
        FINISH,
    )
    async with FakeSGLang(plan) as fake:
        await use_class(scene, fake.base_url, volumeClaim=volume_claim)
        await scene.start("claimed")
        await effects.wait_for("began")
        await scene.kubectl.run("delete", "pod", await pod_of(scene, "claimed"), "--wait=false")
        task = await scene.ended("claimed", WITHIN_S)
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert task["status"]["sandbox"]["generation"] == 1
    assert effects.counts == {"began": 1}
    records = await scene.turns(task)
    (_, lost, after, _) = results(records)
    assert lost[0] == "Unknown" and after[0] == "Ok"
    assert after[1].startswith("kept\nkept\n") and RESTARTED in after[1], "file and variable"
    ledgers = [r["spec"].get("ledger") for r in records if r["spec"]["kind"] == "Turn"]
    assert set(ledgers[1:]) == {task["status"]["sandbox"]["ledger"]}, "the first began without one"
    assert "+kept\n" in records[-1]["spec"]["end"]["patch"]["inline"]
    claim = names.workspace_claim_name("claimed", task["metadata"]["uid"])
    held = await scene.kubectl.get("persistentvolumeclaim", claim)
    assert held["metadata"]["ownerReferences"][0]["uid"] == task["metadata"]["uid"]


async def test_work_on_a_claim_outlives_an_eviction_that_the_status_names(
    scene: Scene, operator: OperatorProcess, effects: Effects, volume_claim: dict[str, str]
) -> None:
    plan = script(bash("echo kept > work.txt"), slow(effects), bash("cat work.txt"), FINISH)
    async with FakeSGLang(plan) as fake:
        await use_class(scene, fake.base_url, volumeClaim=volume_claim, onLoss="Fail")
        await scene.start("evicted")
        await effects.wait_for("began")
        pod = await pod_of(scene, "evicted")
        eviction = {
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod},
        }  # fmt: skip
        path = f"/api/v1/namespaces/{scene.namespace}/pods/{pod}/eviction"
        await scene.kubectl.run("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
        seen = await seen_until_ended(scene, "evicted")
    task = await scene.kubectl.get("agenttask", "evicted")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert "Evicted" in [condition["reason"] for condition in seen]
    assert results(await scene.turns(task))[2][1].startswith("kept\n")


async def test_on_loss_fail_ends_the_task_and_says_what_filled_the_disk(
    scene: Scene, operator: OperatorProcess, effects: Effects
) -> None:
    too_much = f"{effects.command('began')}; head -c 60M /dev/zero > big; sleep 100"
    call = {"name": "bash", "arguments": {"command": too_much, "timeout": 120}}
    async with FakeSGLang(script({"reply": {"tool_calls": [call]}}, FINISH)) as fake:
        await use_class(scene, fake.base_url, sizeLimit="16Mi", onLoss="Fail")
        await scene.start("full")
        seen = await seen_until_ended(scene, "full")
    assert seen[-1]["reason"] == "SandboxLost", seen
    told = seen[-1]["message"]
    if "gave no message" in told:  # as a busy kubelet does; then the events have it, as we say
        told = await scene.kubectl.run(*told[told.index("get events") :].split())
    assert 'exceeds the limit "16Mi"' in told
    task = await scene.kubectl.get("agenttask", "full")
    assert task["status"]["phase"] == "Failed" and task["status"]["sandbox"]["generation"] == 1
    assert results(await scene.turns(task))[0][0] == "Unknown"
    assert effects.counts == {"began": 1}


async def test_a_workspace_on_the_nodes_disk_starts_anew(
    scene: Scene, operator: OperatorProcess, effects: Effects
) -> None:
    plan = script(bash("echo kept > work.txt"), slow(effects), bash("ls work.txt"), FINISH)
    async with FakeSGLang(plan) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("anew")
        await effects.wait_for("began")
        await scene.kubectl.run("delete", "pod", await pod_of(scene, "anew"), "--wait=false")
        task = await scene.ended("anew", WITHIN_S)
    assert task["status"]["sandbox"]["generation"] == 2, task["status"]
    (_, lost, after, _) = results(await scene.turns(task))
    assert lost[0] == "Unknown" and after[0] == "Failed" and "No such file" in after[1]
    assert effects.counts == {"began": 1}


async def test_a_shell_container_that_is_killed_as_a_whole_is_told_so_and_restarts(
    cluster: Cluster, scene: Scene, operator: OperatorProcess, effects: Effects
) -> None:
    """As a kernel with cgroup v2 does for want of memory; here from the node, by a signal to PID 1."""
    if cluster.provider != "local":
        pytest.skip("only the local cluster's node lets a test kill a container")
    plan = script(bash("echo kept > work.txt"), slow(effects), bash("cat work.txt"), FINISH)
    async with FakeSGLang(plan) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("killed")
        await effects.wait_for("began")
        pod = await scene.kubectl.get("pod", await pod_of(scene, "killed"))
        statuses = {s["name"]: s for s in pod["status"]["containerStatuses"]}
        await asyncio.to_thread(machine.kill_container, statuses["shell"]["containerID"])
        seen = await seen_until_ended(scene, "killed")
    task = await scene.kubectl.get("agenttask", "killed")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert "SandboxOutOfMemory" in [condition["reason"] for condition in seen]
    assert task["status"]["sandbox"]["generation"] == 1
    (_, lost, after, _) = results(await scene.turns(task))
    assert lost[0] == "Unknown" and after[1].startswith("kept\n") and RESTARTED in after[1]
    assert effects.counts == {"began": 1}
