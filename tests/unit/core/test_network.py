"""Whether a sandbox's network policy holds: learned, shown, and waited for by who requires it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import ConditionType, Reason
from ratchet.core.facts import CallOrder, Enforcement, NetworkVerdict
from ratchet.core.records import Outcome
from ratchet.core.status import Condition, Summary, summarise
from ratchet.fakes.clock import BEGIN
from ratchet.fakes.model import calls
from ratchet.fakes.sandbox import FakePod
from ratchet.ports import SandboxAway, SandboxRefused

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    CONFIG,
    FINISHED,
    World,
    configured,
    later,
    virtual,
)

OPEN = NetworkVerdict(Enforcement.OPEN, "10.96.0.1:443 answered.")
UNKNOWN = NetworkVerdict(Enforcement.UNKNOWN, "Nothing was tried.")
REQUIRED = configured(sandbox=replace(CONFIG.sandbox, require_enforced_network=True))


def requiring(*, network_s: float = 3.0) -> World:
    """A task whose class has requireEnforcedNetwork; trying takes longer than the model thinks."""
    world = World(calls(BASH), FINISHED, config=REQUIRED)
    world.sandboxes.network_s = network_s
    return world


def shown(summary: Summary | None) -> Condition | None:
    assert summary is not None
    found = [c for c in summary.conditions if c.type is ConditionType.NETWORK_ENFORCED]
    return found[0] if found else None


def when(world: World, kind: type[e.Event]) -> list[float]:
    return [seen.at for seen in world.seen if isinstance(seen.event, kind)]


# --- what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "status", "reason"),
    [
        (NetworkVerdict(Enforcement.ENFORCED, "x"), True, Reason.POLICY_ENFORCED),
        (OPEN, False, Reason.POLICY_IGNORED),
        (UNKNOWN, None, Reason.PROBE_INCONCLUSIVE),
    ],
)
@virtual
async def test_the_condition_says_what_the_sandbox_found_out(
    verdict: NetworkVerdict, status: bool | None, reason: Reason
) -> None:
    world = World(calls(BASH), FINISHED)
    world.sandboxes.network = verdict
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert shown(world.task.summary) == Condition(
        ConditionType.NETWORK_ENFORCED, status, reason, verdict.message
    )


@virtual
async def test_there_is_no_condition_before_it_was_tried() -> None:
    world = World(calls(BASH))
    world.sandboxes.network_s = 60
    world.start()
    state = await world.until(e.SandboxAnswered)
    assert shown(summarise(state, BEGIN)) is None


@virtual
async def test_the_condition_alone_is_no_urgent_write() -> None:
    """It is worth no write of its own beside one that comes within a second."""
    world = World(calls(BASH), FINISHED)
    world.start()
    state = await world.until(e.NetworkLearned)
    before = replace(state, sandbox=replace(state.sandbox, network=None))
    assert summarise(state, BEGIN) != summarise(before, BEGIN)
    assert summarise(state, BEGIN).urgent == summarise(before, BEGIN).urgent


# --- tasks that do not require it ----------------------------------------------------------------


@virtual
async def test_a_task_that_does_not_require_it_is_not_held_up_by_trying() -> None:
    quick, slow = World(calls(BASH), FINISHED), World(calls(BASH), FINISHED)
    quick.sandboxes.network = OPEN
    await quick.run_to_end()
    took = quick.now
    slow.sandboxes.network_s = 600
    await slow.run_to_end()
    assert slow.now - took == pytest.approx(took)
    assert not slow.events(e.NetworkLearned)


@pytest.mark.parametrize("failure", [SandboxAway("silence"), SandboxRefused("bad_request", "404")])
@virtual
async def test_a_sandbox_that_does_not_say_is_no_failure_of_a_task_that_does_not_require_it(
    failure: Exception,
) -> None:
    world = World(calls(BASH, BASH, BASH), FINISHED, tool_s=10)
    world.on("network", BEFORE, failure, times=10**9)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.outcomes(1) == [Outcome.OK] * 3
    assert not world.events(e.SandboxUnreachable)
    condition = shown(world.task.summary)
    assert condition is not None and condition.status is None
    assert condition.message == str(failure)


@virtual
async def test_a_sandbox_that_is_silent_once_is_asked_again() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("network", BEFORE, SandboxAway("silence"), times=2)
    await world.run_to_end()
    assert len(world.events(e.NetworkUnlearned)) == 2
    condition = shown(world.task.summary)
    assert condition is not None and condition.status is True


# --- tasks that require it -----------------------------------------------------------------------


@virtual
async def test_no_call_of_a_task_that_requires_it_runs_before_it_is_known_to_hold() -> None:
    world = requiring()
    began: list[float] = []
    noted = world.sandboxes.began

    def began_now(pod: FakePod, order: CallOrder) -> None:
        began.append(world.now)
        noted(pod, order)

    world.sandboxes.began = began_now
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED and world.ran("bash") == 1
    (learned,) = when(world, e.NetworkLearned)
    assert learned > when(world, e.TurnStored)[0], "the call had to wait"
    assert began[0] >= learned


@pytest.mark.parametrize("verdict", [OPEN, UNKNOWN], ids=lambda v: v.enforcement)
@virtual
async def test_a_task_that_requires_it_ends_where_it_does_not_hold_or_is_not_known(
    verdict: NetworkVerdict,
) -> None:
    world = requiring()
    world.sandboxes.network = verdict
    await world.run_to_end()
    assert world.end.reason == Reason.NETWORK_NOT_ENFORCED
    assert verdict.message in world.end.message and "requireEnforcedNetwork" in world.end.message
    assert not world.effects
    assert world.outcomes(1) == [Outcome.CANCELLED]
    assert shown(world.task.summary) is not None


@virtual
async def test_it_ends_before_the_model_has_answered_where_it_is_known_by_then() -> None:
    world = requiring(network_s=0.1)
    world.sandboxes.network = OPEN
    await world.run_to_end()
    assert world.end.reason == Reason.NETWORK_NOT_ENFORCED and not world.turns


@virtual
async def test_a_task_that_requires_it_looks_at_a_sandbox_that_does_not_say() -> None:
    world = requiring(network_s=0)
    world.on("network", BEFORE, SandboxAway("silence"), times=3)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert len(world.events(e.SandboxAnswered)) == 4


@virtual
async def test_a_task_that_requires_it_does_not_ask_for_ever() -> None:
    world = requiring(network_s=0)
    world.on("network", BEFORE, SandboxAway("silence"), times=10**9)
    await world.run_to_end()
    assert world.end.reason == Reason.NETWORK_NOT_ENFORCED and "silence" in world.end.message
    assert 10 < world.now < 60


# --- another sandbox, another owner --------------------------------------------------------------


@virtual
async def test_a_new_sandbox_is_tried_anew_before_its_first_call() -> None:
    world = requiring()

    def lose() -> None:
        world.sandboxes.network = OPEN
        world.lose_pod()

    world.on("run", BEFORE, lambda: later(0.5, lose))
    await world.run_to_end()
    assert [learned.generation for learned in world.events(e.NetworkLearned)] == [1, 2]
    assert world.end.reason == Reason.NETWORK_NOT_ENFORCED
    assert {effect.generation for effect in world.effects} == {1}


@virtual
async def test_a_new_owner_has_it_tried_anew_before_it_has_a_call_run() -> None:
    world = requiring(network_s=1)

    def die() -> None:
        world.sandboxes.network = OPEN
        world.kill()

    world.on("record_results", AFTER, die)
    await world.run_to_end()
    assert len(world.events(e.NetworkLearned)) == 2
    assert world.end.reason == Reason.NETWORK_NOT_ENFORCED


@virtual
async def test_a_pod_that_was_not_ready_for_a_while_is_tried_anew() -> None:
    """It may be another one, under the same name."""
    world = requiring(network_s=0)
    world.start()
    state = await world.until(e.NetworkLearned)
    assert state.confined
    assert world.pod is not None
    world.pod.ready = False
    runner = world.owners[0].runner
    assert runner is not None
    runner.notify(e.SandboxChanged())
    state = await world.until(e.SandboxWaited)
    assert state.sandbox.network is None and not state.confined
    world.pod.ready = True
    await world.run_to_end()
    assert len(world.events(e.NetworkLearned)) == 2


@virtual
async def test_what_was_learned_of_an_earlier_sandbox_is_no_news() -> None:
    world = requiring(network_s=60)
    world.start()
    await world.until(e.SandboxAnswered)
    runner = world.owners[0].runner
    assert runner is not None
    for event in (e.NetworkLearned(7, OPEN), e.NetworkUnlearned(7, "silence", BEGIN)):
        runner.notify(event)
        state = await world.until(type(event))
        assert state.sandbox.network is None and state.stop is None
    assert not state.sandbox.network_backoff.failures
