"""Sandboxes as processes: what the tests of reliability stand on has to work like a node."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from ratchet.edges.kube import MERGE_PATCH, Kube
from sglang_fake import FakeSGLang, Script

from tests.cluster import Cluster
from tests.e2e.effects import Effects
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene
from tests.proof.node import ProcessNode
from tests.proof.node.registration import LABEL, LEASES, NODES, RUNTIME_CLASSES, Registration
from tests.proof.sandboxproxy import Harm, Rule, SandboxProxy

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def script(*turns: dict[str, Any]) -> Script:
    """One conversation for every task."""
    return Script.model_validate({"conversations": [{"name": "all", "turns": list(turns)}]})


def bash(command: str) -> dict[str, Any]:
    """A turn that runs one command."""
    call = {"name": "bash", "arguments": {"command": command, "timeout": 300}}
    return {"reply": {"tool_calls": [call]}}


FINISH = {"reply": {"tool_calls": [{"name": "finish", "arguments": {"summary": "done"}}]}}


async def test_a_task_runs_as_in_a_pod_and_its_pod_vanishes_at_the_end(
    scene: Scene, node: ProcessNode, operator: OperatorProcess, effects: Effects
) -> None:
    plan = script(bash("cd sub && x=kept; export x"), bash(effects.command("$x-$PWD")), FINISH)
    async with FakeSGLang(plan) as fake:
        await scene.defaults(fake.base_url)
        await node.adopt(scene.namespace)
        began = time.monotonic()
        await scene.start("plain", files=[{"path": "sub/a.txt", "content": "a\n"}])
        task = await scene.ended("plain")
    print(f"from apply to the end: {time.monotonic() - began:.2f} s")
    sandbox = node.sandbox("plain")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert effects.lines == [f"kept-{sandbox.workspace}/sub"]
    records = await scene.turns(task)
    assert [r["spec"]["kind"] for r in records] == ["Start", "Turn", "Turn", "Turn", "End"]
    await scene.kubectl.wait_gone("pod")
    assert not sandbox.workspace.exists()
    assert not sandbox.server.running and not sandbox.runner.running


async def test_a_killed_server_comes_back_with_its_ledger_and_the_command_goes_on(
    scene: Scene, node: ProcessNode, operator: OperatorProcess, effects: Effects
) -> None:
    slow = f"{effects.command('began')}; sleep 2; {effects.command('ended')}"
    async with FakeSGLang(script(bash(slow), FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await node.adopt(scene.namespace)
        await scene.start("server")
        await effects.wait_for("began")
        sandbox = node.sandbox("server")
        sandbox.kill_server()
        await sandbox.wait_restarted("server")
        task = await scene.ended("server")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert effects.counts == {"began": 1, "ended": 1}
    assert task["status"].get("unknownOutcomes", 0) == 0
    assert (sandbox.server.restarts, sandbox.runner.restarts, sandbox.generation) == (1, 0, 1)
    assert len(node.sandboxes) == 1


async def test_a_killed_runner_takes_its_commands_with_it_and_is_started_again(
    scene: Scene, node: ProcessNode, operator: OperatorProcess, effects: Effects
) -> None:
    slow = f"{effects.command('began')}; sleep 2; {effects.command('ended')}"
    after = bash(effects.command("after"))
    async with FakeSGLang(script(bash(slow), after, FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await node.adopt(scene.namespace)
        await scene.start("runner")
        await effects.wait_for("began")
        sandbox = node.sandbox("runner")
        sandbox.kill_runner()
        task = await scene.ended("runner")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert effects.counts == {"began": 1, "after": 1}
    assert task["status"]["unknownOutcomes"] == 1
    assert (sandbox.server.restarts, sandbox.runner.restarts, sandbox.generation) == (0, 1, 1)


@pytest.mark.parametrize("vanish", [False, True])
async def test_a_lost_pod_is_followed_by_a_new_one(
    scene: Scene, node: ProcessNode, operator: OperatorProcess, effects: Effects, vanish: bool
) -> None:
    slow = f"{effects.command('began')}; sleep 20; {effects.command('ended')}"
    after = bash(effects.command("after"))
    async with FakeSGLang(script(bash(slow), after, FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await node.adopt(scene.namespace)
        await scene.start("lost")
        await effects.wait_for("began")
        first = node.sandbox("lost")
        await first.lose_pod(vanish=vanish)
        second = await node.wait_for("lost", generation=2)
        task = await scene.ended("lost")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert effects.counts == {"began": 1, "after": 1}
    assert task["status"]["unknownOutcomes"] == 1
    assert (first.generation, second.generation) == (1, 2)
    assert not first.workspace.exists()


async def test_failpoints_strike_in_the_sandbox_that_they_were_meant_for(
    scene: Scene, node: ProcessNode, operator: OperatorProcess, effects: Effects
) -> None:
    plan = script(bash(effects.command("{key}-{turn}")), bash("true"), FINISH)
    async with FakeSGLang(plan) as fake:
        await scene.defaults(fake.base_url)
        await node.adopt(scene.namespace)
        node.arm("armed", server="result-stored=kill", runner="result-sent=kill@2")
        await scene.start("other")
        await scene.start("armed")
        tasks = [await scene.ended("other"), await scene.ended("armed")]
    assert [task["status"]["phase"] for task in tasks] == ["Succeeded"] * 2
    assert sorted(effects.counts.values()) == [1, 1]
    assert node.sandbox("armed").struck() == ["result-stored kill", "result-sent kill"]
    assert node.sandbox("other").struck() == []


async def test_a_server_that_stands_still_makes_its_pod_unready_until_it_goes_on(
    scene: Scene, node: ProcessNode, operator: OperatorProcess, effects: Effects
) -> None:
    slow = f"{effects.command('began')}; sleep 15; {effects.command('ended')}"
    async with FakeSGLang(script(bash(slow), FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await node.adopt(scene.namespace)
        await scene.start("still")
        await effects.wait_for("began")
        sandbox = node.sandbox("still")
        sandbox.stop_server()
        await scene.kubectl.run("wait", "pod", sandbox.name, "--for=condition=Ready=false")
        sandbox.continue_server()
        await sandbox.wait_ready()
        task = await scene.ended("still")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert effects.counts == {"began": 1, "ended": 1}
    assert sandbox.server.restarts == 0


async def test_a_submission_whose_answers_are_lost_runs_once(
    cluster: Cluster, scene: Scene, operator: OperatorProcess, effects: Effects, tmp_path: Path
) -> None:
    async with (
        SandboxProxy() as proxy,
        ProcessNode(cluster, tmp_path / "fronted", front=proxy.front) as node,
        FakeSGLang(script(bash(effects.command("{key}")), FINISH)) as fake,
    ):
        # Two times: aiohttp sends a PUT that was cut off again by itself.
        lost = proxy.add(Rule(Harm.DROP_AFTER_COMMIT, "PUT", "/v1/calls/.*/1/0", times=2))
        await scene.defaults(fake.base_url)
        await node.adopt(scene.namespace)
        await scene.start("lost-answers")
        task = await scene.ended("lost-answers")
        await scene.kubectl.wait_gone("pod")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert lost.struck == 2
    assert list(effects.counts.values()) == [1]
    assert task["status"].get("unknownOutcomes", 0) == 0


async def test_a_node_removes_what_a_killed_test_has_left_and_leaves_nothing_itself(
    cluster: Cluster, api: Kube, tmp_path: Path
) -> None:
    abandoned = Registration(api, f"processes-{uuid.uuid4().hex[:8]}")
    await abandoned.make()
    assert await parts(api, abandoned.name) == {NODES, RUNTIME_CLASSES}
    long_ago = {"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}}
    lease = f"{LEASES}/{abandoned.name}"
    await api.request("PATCH", lease, long_ago, content_type=MERGE_PATCH)
    async with ProcessNode(cluster, tmp_path) as node:
        assert not await parts(api, abandoned.name)
        assert await parts(api, node.name) == {NODES, RUNTIME_CLASSES}
    assert not await parts(api, node.name)


async def parts(api: Kube, name: str) -> set[str]:
    """What the cluster has of a process node."""
    found = set()
    for path in (NODES, RUNTIME_CLASSES):
        listed = await api.request("GET", path, params={"labelSelector": f"{LABEL}={name}"})
        found |= {path for _ in listed["items"]}
    return found
