"""A task under rules that hypothesis chooses: whatever it comes up with, all promises are kept.

Between two rules time passes. At the end the task is seen to its end, and everything is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ratchet.fakes.clock import VirtualLoop

from tests.proof.mutations import ALL
from tests.property.disasters import strike
from tests.property.network import Doom, Fate
from tests.property.plan import TOOLS, Plan, What
from tests.property.scenario import crashes, finished, inspect, make_cluster, settled

SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=120,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
words = strategies.sampled_from([name for name in TOOLS if name != "finish"])
answers = strategies.lists(strategies.lists(words, min_size=1, max_size=3), min_size=1, max_size=4)
lengths = strategies.sampled_from((0.5, 3.0, 10.0, 40.0))
LIKE = Plan(seed=0, think_s=1.0, has_file=True, share_bad=0.0)
"""What every task is, but for its answers and its policy."""


class Task(RuleBasedStateMachine):
    """One task in a pretended cluster, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.crashes = crashes()
        self.broke = self.crashes.__enter__()

    @initialize(
        replies=answers, policy=strategies.sampled_from(("Report", "Retry", "Fail")),
        tool_s=strategies.sampled_from((0.0, 1.0, 3.0)),
    )  # fmt: skip
    def begin(self, replies: list[list[str]], policy: str, tool_s: float) -> None:
        said = tuple(tuple(reply) for reply in replies)
        plan = replace(LIKE, answers=said, on_unknown=policy, tool_s=tool_s)
        self.cluster = make_cluster(plan)
        self.run(0.0, lambda: self.cluster.start())

    def run(self, seconds: float, act: Callable[[], object]) -> None:
        async def step() -> None:
            act()
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(step())

    @rule(seconds=strategies.floats(0.0, 6.0, allow_nan=False).map(lambda s: round(s, 2)))
    def time_passes(self, seconds: float) -> None:
        self.run(seconds, lambda: None)

    @rule(seconds=strategies.sampled_from((0.0, 0.3, 2.0)))
    def until_a_call_runs(self, seconds: float) -> None:
        """Time passes until the next call begins, and a little more."""

        async def wait() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await self.cluster.calls_begun(len(self.cluster.effects) + 1)
                    await asyncio.sleep(seconds)

        self.loop.run_until_complete(wait())

    @rule(what=strategies.sampled_from((What.KILL, What.KILL_CLAIMING)), seconds=lengths)
    def the_operator_is_killed(self, what: What, seconds: float) -> None:
        self.strike(what, seconds)

    @rule(what=strategies.sampled_from((What.STALL, What.SECOND)), seconds=lengths)
    def another_operator_begins(self, what: What, seconds: float) -> None:
        self.strike(what, seconds)

    @precondition(lambda self: self.cluster.pod is not None)
    @rule(what=strategies.sampled_from((What.POD, What.EVICTED)))
    def the_pod_is_lost(self, what: What) -> None:
        self.strike(what, 0.0)

    @precondition(lambda self: self.cluster.pod is not None)
    @rule(what=strategies.sampled_from((What.RUNNER, What.SERVER)), seconds=lengths)
    def a_container_restarts(self, what: What, seconds: float) -> None:
        self.strike(what, seconds)

    @rule(
        what=strategies.sampled_from((What.API, What.CUT_OFF, What.QUEUE, What.AWAY)),
        seconds=lengths,
    )
    def somebody_cannot_be_reached(self, what: What, seconds: float) -> None:
        self.strike(what, seconds)

    @rule(what=strategies.sampled_from((What.WATCH_LATE, What.WATCH_AGAIN)), seconds=lengths)
    def the_watch_tells_old_facts(self, what: What, seconds: float) -> None:
        self.strike(what, seconds)

    @rule(what=strategies.sampled_from((What.CANCEL, What.EDIT, What.EDIT)))
    def somebody_edits_the_task(self, what: What) -> None:
        self.strike(what, 0.0)

    def strike(self, what: What, seconds: float) -> None:
        self.run(0.0, lambda: strike(self.cluster, what, seconds))

    @rule(fate=strategies.sampled_from(Fate), ahead=strategies.integers(0, 20), seconds=lengths)
    def a_request_goes_wrong(self, fate: Fate, ahead: int, seconds: float) -> None:
        network = self.cluster.network
        doom = Doom(network.moments + ahead, fate, seconds, lambda: None)
        self.run(0.0, lambda: network.doom(doom))

    def teardown(self) -> None:
        try:
            if hasattr(self, "cluster"):
                self.loop.run_until_complete(self.to_the_end())
        finally:
            self.crashes.__exit__(None, None, None)
            self.loop.close()

    async def to_the_end(self) -> None:
        cluster = self.cluster
        try:
            await finished(cluster)
            await settled(cluster)
        finally:
            await cluster.end()
        findings = inspect(cluster)
        assert not self.broke, self.broke
        assert not findings.broken, "\n".join((*findings.remarks, *cluster.story))


@pytest.mark.timeout(300)
def test_whatever_rules_are_applied_all_promises_are_kept() -> None:
    run_state_machine_as_test(Task, settings=SETTINGS)


@pytest.mark.timeout(300)
def test_the_rules_find_a_sandbox_that_is_asked_for_the_calls_of_a_lost_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ALL["no_generation_check"](monkeypatch)
    quick = settings(SETTINGS, phases=[Phase.generate])  # found, and not made smaller
    with pytest.raises(AssertionError, match="happened"):
        run_state_machine_as_test(Task, settings=quick)
