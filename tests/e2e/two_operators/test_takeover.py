"""Two operators and one Lease: one works, the other follows it, and one that comes back does no harm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sglang_fake import FakeSGLang, Script

from tests.e2e.effects import Effects
from tests.e2e.scene import Scene
from tests.e2e.two_operators.pair import Pair, owner, taken_over

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

AFTER_A_KILL_S = 20.0
AFTER_A_GRACEFUL_STOP_S = 3.0
FINISH = {"reply": {"tool_calls": [{"name": "finish", "arguments": {"summary": "done"}}]}}


def bash(command: str, **more: Any) -> dict[str, Any]:
    """A turn that runs one command."""
    call = {"name": "bash", "arguments": {"command": command, "timeout": 300}}
    return {"reply": {"tool_calls": [call]}, **more}


def script(*turns: dict[str, Any]) -> Script:
    """One conversation for every task."""
    return Script.model_validate({"conversations": [{"turns": list(turns)}]})


async def ends_as_if_nothing_had_happened(
    scene: Scene, name: str, turns: int, epoch: int
) -> dict[str, Any]:
    """Wait for the end of a task; its history has no hole and no fork."""
    task = await scene.ended(name, 240)
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert task["status"]["turns"] == turns
    assert task["status"]["owner"]["epoch"] == epoch
    assert task["status"].get("unknownOutcomes", 0) == 0
    kinds = [record["spec"]["kind"] for record in await scene.turns(task)]
    assert kinds == ["Start", *["Turn"] * turns, "End"]
    return task


async def test_only_the_holder_of_the_lease_claims_tasks(
    scene: Scene, pair: Pair, effects: Effects
) -> None:
    async with FakeSGLang(script(bash(effects.command("{key}")), FINISH)) as fake:
        await scene.defaults(fake.base_url)
        names = [f"many-{number}" for number in range(5)]
        for name in names:
            await scene.start(name)
        for name in names:
            task = await ends_as_if_nothing_had_happened(scene, name, turns=2, epoch=1)
            assert owner(task) == pair.first.pod
    assert set(effects.counts.values()) == {1}
    assert len(effects.lines) == len(names)
    await pair.second.ready(role="standby")


async def kill(pair: Pair) -> None:
    await pair.first.kill()


async def stop(pair: Pair) -> None:
    assert pair.first.process is not None
    pair.first.process.terminate()


@pytest.mark.parametrize(
    ("end", "within_s"), [(kill, AFTER_A_KILL_S), (stop, AFTER_A_GRACEFUL_STOP_S)]
)
async def test_the_other_one_goes_on_in_the_middle_of_a_call(
    scene: Scene,
    pair: Pair,
    effects: Effects,
    end: Callable[[Pair], Awaitable[None]],
    within_s: float,
) -> None:
    slow = f"{effects.command('started')}; sleep 8; {effects.command('ended')}"
    async with FakeSGLang(script(bash(slow), bash("echo after"), FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("halved")
        await effects.wait_for("started")
        await end(pair)
        took = await taken_over(scene.kubectl, "halved", pair.second.pod, within_s + 30)
        print(f"{end.__name__}: taken over after {took:.2f} s")
        await ends_as_if_nothing_had_happened(scene, "halved", turns=3, epoch=2)
    assert effects.counts == {"started": 1, "ended": 1}
    assert took < within_s
    assert not len(fake.requests) > 3, "a turn that is recorded is not asked for again"


async def test_the_other_one_asks_the_model_again(scene: Scene, pair: Pair) -> None:
    async with FakeSGLang(script({**FINISH, "delay_s": 6})) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("thinking")
        await fake.wait_until(lambda seen: bool(seen), 60)
        await stop(pair)
        took = await taken_over(scene.kubectl, "thinking", pair.second.pod, 30)
        task = await ends_as_if_nothing_had_happened(scene, "thinking", turns=1, epoch=2)
    assert task["status"]["lostRequests"] == 1
    assert len(fake.requests) == 2
    assert took < AFTER_A_GRACEFUL_STOP_S


async def test_one_that_stood_still_in_a_call_finds_itself_followed_and_stands_by(
    scene: Scene, pair: Pair, effects: Effects
) -> None:
    slow = f"{effects.command('started')}; sleep 30; {effects.command('ended')}"
    async with FakeSGLang(script(bash(slow), bash(effects.command("after")), FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("paused")
        await effects.wait_for("started")
        pair.first.pause()
        took = await taken_over(scene.kubectl, "paused", pair.second.pod, AFTER_A_KILL_S + 30)
        print(f"pause: taken over after {took:.2f} s")
        pair.first.wake()
        await pair.first.ready(role="standby")
        await ends_as_if_nothing_had_happened(scene, "paused", turns=3, epoch=2)
    assert effects.counts == {"started": 1, "ended": 1, "after": 1}
    assert took < AFTER_A_KILL_S
    assert len(fake.requests) == 3


async def test_one_that_wakes_up_with_a_reply_in_its_hands_changes_nothing_after_the_end(
    scene: Scene, pair: Pair, effects: Effects
) -> None:
    turns = (bash(effects.command("once"), delay_s=3), FINISH)
    async with FakeSGLang(script(*turns)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("late")
        await fake.wait_until(lambda seen: bool(seen), 60)
        pair.first.pause()  # the reply comes while it stands still
        before = await ends_as_if_nothing_had_happened(scene, "late", turns=2, epoch=2)
        journal = await scene.turns(before)
        pair.first.wake()
        await pair.first.ready(role="standby")
        await asyncio.sleep(3)  # for what it might still do: there is no event for doing nothing
        after = await scene.kubectl.get("agenttask", "late")
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        assert await scene.turns(after) == journal
    assert effects.counts == {"once": 1}
    assert before["status"]["lostRequests"] == 1


async def test_one_that_came_back_follows_the_other(scene: Scene, pair: Pair) -> None:
    pair.first.pause()
    await pair.second.ready()
    pair.first.wake()
    await pair.first.ready(role="standby")
    await pair.second.kill()
    await pair.first.ready()
    async with FakeSGLang(script(bash("echo hello"), FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("last")
        task = await ends_as_if_nothing_had_happened(scene, "last", turns=2, epoch=1)
    assert owner(task) == pair.first.pod
