"""Deleting and cancelling: the model's request is closed, the pod goes, nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sglang_fake import FakeSGLang

from tests.e2e.effects import Effects
from tests.e2e.kubectl import Refused, finished
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene
from tests.e2e.tasks.test_reliability import FINISH, bash, script

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

HANG = {"error": {"kind": "hang"}}
LEFT_OVERS = ("pods", "secrets", "networkpolicies", "agentturns")


async def _asked(fake: FakeSGLang, turn: int) -> None:
    """Wait until the model works on the request for this turn."""
    await fake.wait_until(lambda seen: fake.in_flight == 1 and len(seen) >= turn, timeout_s=60)


async def _seconds_until(holds: Callable[[], bool], within_s: float) -> float:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - in another process; there is no event to wait for
            await asyncio.sleep(0.02)
    return loop.time() - begin


async def test_cancelling_closes_the_model_request_and_removes_the_pod(
    scene: Scene, operator: OperatorProcess
) -> None:
    async with FakeSGLang(script(bash("echo one"), HANG)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("stop-me")
        await _asked(fake, 2)
        patch = '{"spec": {"cancel": true}}'
        await scene.kubectl.run("patch", "agenttask", "stop-me", "--type=merge", "-p", patch)
        assert await _seconds_until(lambda: fake.in_flight == 0, 10) < 2
        assert await scene.kubectl.wait_gone("pods", within_s=20) < 10
        task = await scene.ended("stop-me", 20)
    assert task["status"]["phase"] == "Cancelled"
    records = await scene.turns(task)
    assert records[-1]["spec"]["end"]["outcome"] == "Cancelled"
    await scene.kubectl.wait_gone("secrets")  # they belong to the pod, and are collected after it


async def test_cancelling_in_a_tool_call_ends_the_command_and_records_it(
    scene: Scene, operator: OperatorProcess, effects: Effects
) -> None:
    command = f"{effects.command('started')}; sleep 60; {effects.command('survived')}"
    async with FakeSGLang(script(bash(command), FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("stop-tool")
        await effects.wait_for("started")
        patch = '{"spec": {"cancel": true}}'
        await scene.kubectl.run("patch", "agenttask", "stop-tool", "--type=merge", "-p", patch)
        task = await scene.ended("stop-tool", 20)
        assert await scene.kubectl.wait_gone("pods", within_s=20) < 10
    assert task["status"]["phase"] == "Cancelled"
    records = await scene.turns(task)
    assert records[1]["status"]["results"][0]["outcome"] == "Killed"
    assert effects.lines == ["started"]


async def test_deleting_a_running_task_leaves_nothing_behind(
    scene: Scene, operator: OperatorProcess
) -> None:
    async with FakeSGLang(script(bash("echo one"), HANG)) as fake:
        await scene.defaults(fake.base_url)
        files = [{"path": "a.txt", "content": "a\n"}]
        await scene.start("delete-me", files=files)
        await _asked(fake, 2)
        await scene.kubectl.run("delete", "agenttask", "delete-me", "--wait=false")
        assert await _seconds_until(lambda: fake.in_flight == 0, 10) < 2
        assert await scene.kubectl.wait_gone("pods", within_s=20) < 10
        for kind in LEFT_OVERS:
            await scene.kubectl.wait_gone(kind, within_s=30)
        maps = await scene.kubectl.names("configmaps")
    assert maps == ["kube-root-ca.crt"]
    with pytest.raises(Refused, match="NotFound"):
        await scene.kubectl.get("agenttask", "delete-me")


async def test_a_task_past_its_deadline_ends_with_a_reason(
    scene: Scene, operator: OperatorProcess
) -> None:
    async with FakeSGLang(script(HANG)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("late", activeDeadlineSeconds=3)
        task = await scene.ended("late", 60)
        assert await _seconds_until(lambda: fake.in_flight == 0, 10) < 2
    assert finished(task)
    assert task["status"]["reason"] == "DeadlineExceeded"
    assert "activeDeadlineSeconds" in task["status"]["message"]
