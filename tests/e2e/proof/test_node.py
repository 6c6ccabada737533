"""Sandboxes as processes: what the tests of reliability stand on has to work like a node."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sglang_fake import FakeSGLang, Script

from tests.e2e.effects import Effects
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene
from tests.proof.node import ProcessNode

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def script(*turns: dict[str, Any]) -> Script:
    """One conversation for every task."""
    return Script.model_validate({"conversations": [{"name": "all", "turns": list(turns)}]})


def bash(command: str) -> dict[str, Any]:
    """A turn that runs one command."""
    return {"reply": {"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}}


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
