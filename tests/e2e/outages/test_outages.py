"""The API server falls silent, goes away, or takes a token no more: no restart, and no step is lost.

`RATCHET_OUTAGE_S` is for how many seconds it is away, 45 by default; 330 is more than five minutes.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest
from sglang_fake import FakeSGLang, Script

from tests.e2e.effects import Effects
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.outages.conftest import FIRST_TOKEN, write_token
from tests.e2e.scene import Scene
from tests.e2e.two_operators.pair import owner
from tests.proof.apiproxy import ApiProxy
from tests.proof.proxy.rules import WatchAct, WatchRule

AWAY_S = float(os.environ.get("RATCHET_OUTAGE_S", "45"))
LONGEST_COMMAND_S = 200.0
"""Less than the hard timeout of a command, 300 s."""
LEASE_IS_GONE_S = 15.0
HEARD_WITHIN_S = 90.0
"""kopf opens a watch anew after 70 s of silence."""
GOES_ON_WITHIN_S = 40.0
"""kopf's longest pause between two tries is 10 s, ours are no longer; a pod has to start too."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300 + 2 * AWAY_S)]

FINISH = {"reply": {"tool_calls": [{"name": "finish", "arguments": {"summary": "done"}}]}}


def bash(command: str, **more: Any) -> dict[str, Any]:
    """A turn that runs one command."""
    call = {"name": "bash", "arguments": {"command": command, "timeout": 300}}
    return {"reply": {"tool_calls": [call]}, **more}


def scripts(**turns: list[dict[str, Any]]) -> Script:
    """A conversation for each task, by its name."""
    found = [
        {"name": name, "match": {"contains": f"script of {name} "}, "turns": each}
        for name, each in turns.items()
    ]
    return Script.model_validate({"conversations": found})


async def succeeded(scene: Scene, name: str, turns: int, within_s: float) -> dict[str, Any]:
    """Wait for the end of a task, whose history has no hole."""
    task = await scene.ended(name, within_s)
    status: dict[str, Any] = task["status"]
    assert status["phase"] == "Succeeded", status
    assert status["turns"] == turns
    assert status.get("unknownOutcomes", 0) == 0
    assert len(await scene.turns(task)) == turns + 2
    return status


async def test_watches_that_fall_silent_are_opened_again_and_loops_do_not_need_them(
    scene: Scene, proxy: ApiProxy, behind: OperatorProcess, effects: Effects
) -> None:
    long = [bash(f"sleep 2; {effects.command('{turn}')}", repeat=10), FINISH]
    async with FakeSGLang(scripts(running=long, unheard=[FINISH])) as fake:
        await behind.start()
        await scene.defaults(fake.base_url)
        await scene.start("running")
        await effects.wait_for("1")
        proxy.silence(on=True)
        await scene.start("unheard")
        status = await succeeded(scene, "running", 11, 120)
        assert (status["owner"]["epoch"], status.get("lostRequests", 0)) == (1, 0)
        assert owner(await scene.kubectl.get("agenttask", "unheard")) == "", "it is heard of"
        proxy.silence(on=False)
        await succeeded(scene, "unheard", 1, HEARD_WITHIN_S)
    assert effects.counts == {str(turn): 1 for turn in range(1, 11)}


async def test_an_outage_of_the_api_server_costs_no_step_and_no_restart(
    scene: Scene, proxy: ApiProxy, behind: OperatorProcess, effects: Effects
) -> None:
    seconds = min(AWAY_S + 5, LONGEST_COMMAND_S)
    slow = f"{effects.command('begun')}; sleep {seconds:g}; {effects.command('ended')}"
    thinking = {**bash(effects.command("thought")), "delay_s": 20}
    plan = scripts(
        calling=[bash(slow), bash(effects.command("after")), FINISH],
        asking=[thinking, FINISH],
        unheard=[FINISH],
    )
    async with FakeSGLang(plan) as fake:
        await behind.start()
        await scene.defaults(fake.base_url)
        for name in ("calling", "asking"):
            await scene.start(name)
        await effects.wait_for("begun")
        await fake.wait_until(lambda seen: {"calling", "asking"} <= {s.conversation for s in seen})
        proxy.go_away()
        away = asyncio.create_task(asyncio.sleep(AWAY_S))
        await scene.start("unheard")
        await away
        await proxy.come_back()
        back = time.monotonic()
        await scene.kubectl.wait_until(
            "agenttask", "calling", lambda task: task["status"]["owner"]["epoch"] == 2, 60
        )
        print(f"away {AWAY_S:g} s; claimed again after {time.monotonic() - back:.1f} s")
        await succeeded(scene, "unheard", 1, GOES_ON_WITHIN_S)
        print(f"a task of meanwhile ended after {time.monotonic() - back:.1f} s")
        called = await succeeded(scene, "calling", 3, 60)
        asked = await succeeded(scene, "asking", 2, 60)
    assert effects.counts == {"begun": 1, "ended": 1, "thought": 1, "after": 1}
    assert called.get("lostRequests", 0) == 0
    assert asked["lostRequests"] == 1


async def test_an_operator_that_starts_while_the_api_server_is_away_waits_for_it(
    scene: Scene, proxy: ApiProxy, behind: OperatorProcess
) -> None:
    proxy.go_away()
    await behind.launch()
    await asyncio.sleep(5)  # long enough to be refused several times
    await proxy.come_back()
    await behind.ready()
    async with FakeSGLang(scripts(first=[FINISH])) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("first")
        await succeeded(scene, "first", 1, 60)


async def test_a_token_that_was_renewed_in_time_is_taken_up_without_a_pause(
    scene: Scene, proxy: ApiProxy, behind: OperatorProcess, effects: Effects
) -> None:
    proxy.tokens = {FIRST_TOKEN}
    plan = scripts(
        running=[bash(f"sleep 1; {effects.command('{turn}')}", repeat=8), FINISH],
        later=[FINISH],
    )
    async with FakeSGLang(plan) as fake:
        await behind.start()
        await scene.defaults(fake.base_url)
        await scene.start("running")
        await effects.wait_for("2")
        write_token(proxy, "second")
        proxy.tokens = {"second"}
        proxy.add_watch(WatchRule(WatchAct.CLOSE, times=2))  # each watch begins again
        status = await succeeded(scene, "running", 9, 60)
        await scene.start("later")
        await succeeded(scene, "later", 1, 60)
    assert proxy.unauthorized >= 2, "both our client and kopf had the old one"
    assert effects.counts == {str(turn): 1 for turn in range(1, 9)}
    assert (status["owner"]["epoch"], status.get("lostRequests", 0)) == (1, 0)


async def test_a_token_that_ran_out_before_there_was_another_costs_no_step_and_no_restart(
    scene: Scene, proxy: ApiProxy, behind: OperatorProcess, effects: Effects
) -> None:
    proxy.tokens = {FIRST_TOKEN}
    slow = f"{effects.command('begun')}; sleep 30; {effects.command('ended')}"
    plan = scripts(calling=[bash(slow), FINISH], later=[FINISH])
    async with FakeSGLang(plan) as fake:
        await behind.start()
        await scene.defaults(fake.base_url)
        await scene.start("calling")
        await effects.wait_for("begun")
        proxy.tokens = set()
        proxy.add_watch(WatchRule(WatchAct.CLOSE, times=2))
        await asyncio.sleep(LEASE_IS_GONE_S)
        proxy.tokens = {"second"}
        write_token(proxy, "second")
        status = await succeeded(scene, "calling", 2, 90)
        await scene.start("later")
        await succeeded(scene, "later", 1, HEARD_WITHIN_S)
    assert effects.counts == {"begun": 1, "ended": 1}
    assert status["owner"]["epoch"] == 2
