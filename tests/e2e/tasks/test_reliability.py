"""Nothing runs twice and nothing is lost: with an operator that dies, and with none that does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sglang_fake import FakeSGLang, Script

from tests.e2e.effects import Effects
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def script(*turns: dict[str, Any]) -> Script:
    """One conversation for every task."""
    return Script.model_validate({"conversations": [{"name": "all", "turns": list(turns)}]})


def bash(command: str) -> dict[str, Any]:
    """A turn that runs one command."""
    return {"reply": {"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}}


FINISH = {"reply": {"tool_calls": [{"name": "finish", "arguments": {"summary": "done"}}]}}


async def test_a_command_runs_once_although_the_operator_is_killed_in_the_middle_of_it(
    scene: Scene, operator: OperatorProcess, effects: Effects
) -> None:
    slow = (
        f"echo once >> ran.txt; {effects.command('started')}; sleep 4; {effects.command('ended')}"
    )
    async with FakeSGLang(
        script(bash("echo before"), bash(slow), bash("cat ran.txt"), FINISH)
    ) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("killed")
        await effects.wait_for("started")
        await operator.kill()
        await operator.start()
        task = await scene.ended("killed")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert effects.counts == {"started": 1, "ended": 1}
    records = await scene.turns(task)
    assert [r["spec"]["kind"] for r in records] == ["Start", "Turn", "Turn", "Turn", "Turn", "End"]
    assert records[3]["status"]["results"][0]["content"].strip() == "once"
    assert "+once\n" in records[5]["spec"]["end"]["patch"]["inline"]
    assert task["status"]["owner"]["epoch"] == 2
    assert [r["spec"]["epoch"] for r in records] == [1, 1, 1, 2, 2, 2]
    assert task["status"].get("unknownOutcomes", 0) == 0
    seen = len(fake.requests)
    assert seen == 4 + task["status"].get("lostRequests", 0)


async def test_twenty_tasks_at_once_run_each_of_their_200_calls_once(
    scene: Scene, operator: OperatorProcess, effects: Effects
) -> None:
    tasks, turns = 20, 10
    call = bash(f"sleep 0.05; {effects.command('{key}-{turn}')}")
    plan = script({**call, "repeat": turns - 1}, FINISH)
    async with FakeSGLang(plan) as fake:
        await scene.defaults(fake.base_url)
        names = [f"many-{n}" for n in range(tasks)]
        goals = [scene.object("AgentTask", name, goal="Count.") for name in names]
        await scene.kubectl.apply(*goals)
        ended = await asyncio.gather(*(scene.ended(name, 240) for name in names))
        refused = [seen for seen in fake.requests if seen.outcome != "answered"]
    assert [task["status"]["phase"] for task in ended] == ["Succeeded"] * tasks
    assert not refused, "the strict model saw a history with a hole"
    assert len(effects.lines) == tasks * (turns - 1)
    assert set(effects.counts.values()) == {1}
    for task in ended:
        records = await scene.turns(task)
        assert len(records) == turns + 2
        assert task["status"]["turns"] == turns
