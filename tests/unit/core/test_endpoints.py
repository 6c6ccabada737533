"""A task with several endpoints, and one whose endpoint lets nobody in: told from outside."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import Phase, Reason
from ratchet.core.config import Config, ContextImage, Limits, ModelConfig, Price
from ratchet.core.cost import cost, lost_cost, turn_cost
from ratchet.core.facts import Receipt
from ratchet.core.records import Outcome
from ratchet.core.replies import FailureKind, ModelFailure, RawReply, Usage
from ratchet.core.status import summarise
from ratchet.fakes.clock import BEGIN, LoopClock
from ratchet.fakes.model import calls
from ratchet.ports import Away

from tests.unit.core.invariants import spend_is_counted
from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    BROKEN,
    BUSY,
    FINISHED,
    World,
    configured,
    later,
    virtual,
)

BACKUP = ModelConfig("backup", "http://backup/v1", "m2", namespace="shared", give_up_s=1800)
NO_KEY = ModelFailure(FailureKind.CONFIGURATION, "The key is refused.", 401)
TOO_LONG = ModelFailure(FailureKind.CONTEXT, "It does not fit.", 400)
UNSENT = ModelFailure(FailureKind.RETRY, "Connection refused.", reached=False)


def two(**changes: Any) -> Config:
    """A task with a fallback."""
    return replace(configured(model_give_up_s=1800.0, **changes), fallbacks=(BACKUP,))


def asked(world: World) -> list[str]:
    """The endpoints that got a request, in order."""
    return [request.config.endpoint for request in world.model.seen]


def shown(world: World, phase: Phase) -> list[str]:
    """The messages that the status showed in a phase."""
    return [s.message for s in world.summaries if s.phase is phase]


@virtual
async def test_an_endpoint_that_is_down_is_tried_as_often_as_it_says_then_the_fallback_is_asked() -> (
    None
):
    world = World(calls(BASH), FINISHED, config=two(model_attempts=2))
    world.model.down = {"default": BROKEN}
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert asked(world) == ["default", "default", "backup"] * 2
    assert [turn.reply.endpoint for turn in world.turns] == ["shared/backup"] * 2
    assert '"model":"m2"' in world.asked()[2]
    spend_is_counted(world)


@virtual
async def test_an_endpoint_that_is_full_for_an_hour_holds_up_no_task_that_has_a_fallback() -> None:
    world = World(calls(BASH), FINISHED, config=two())
    world.model.down = {"default": ModelFailure(FailureKind.WAIT, "full", 429, retry_after_s=3600)}
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED and asked(world)[:2] == ["default", "backup"]
    assert LoopClock().now() < BEGIN + timedelta(minutes=1)


@virtual
async def test_a_fallback_without_vision_is_asked_without_the_images() -> None:
    config = replace(two(model_vision=True), images=(ContextImage("image/png", "iVBORw0KGgo="),))
    world = World(calls(BASH), FINISHED, config=config)
    world.model.down = {"default": NO_KEY}
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    sent = [(r.config.endpoint, "iVBORw0KGgo=" in r.body) for r in world.model.seen]
    assert sent == [("default", True), ("backup", False)] * 2
    assert "[1 image was given, which this model cannot take]" in world.asked()[1]
    spend_is_counted(world)


@virtual
async def test_a_task_with_images_that_is_taken_over_asks_with_the_same_bytes() -> None:
    config = replace(
        configured(model_vision=True), images=(ContextImage("image/png", "iVBORw0KGgo="),)
    )
    world = World(calls(BASH), FINISHED, config=config)
    world.on("ask", BEFORE, world.kill, skip=1)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert all("data:image/png;base64,iVBORw0KGgo=" in body for body in world.asked())
    assert len(set(world.asked())) == 2


@virtual
async def test_a_key_that_is_refused_sends_the_task_to_the_fallback_and_says_so() -> None:
    world = World(FINISHED, config=two())
    world.model.down = {"default": NO_KEY}
    await world.run_to_end()
    assert asked(world) == ["default", "backup"] and world.end.reason == Reason.FINISHED
    assert any("Endpoint shared/backup is asked instead" in m for m in shown(world, Phase.RUNNING))


@virtual
async def test_a_full_endpoint_is_waited_for_three_times_in_a_row() -> None:
    world = World(FINISHED, config=two())
    world.model.down = {"default": BUSY}
    await world.run_to_end()
    assert asked(world) == ["default"] * 3 + ["backup"]
    spend_is_counted(world, waits=3)


@virtual
async def test_an_outage_of_all_endpoints_is_waited_out() -> None:
    world = World(calls(BASH), FINISHED, config=two(model_attempts=1))
    world.model.down = {"default": BROKEN, "backup": BROKEN}
    later(900, world.model.down.clear)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert 900 < world.now < 1000
    waiting = [s for s in world.summaries if s.reason is Reason.MODEL_UNREACHABLE]
    assert {s.phase for s in waiting} == {Phase.RUNNING}
    assert "shared/backup: The connection broke." in waiting[0].message
    spend_is_counted(world)


@virtual
async def test_an_outage_that_does_not_end_ends_the_task() -> None:
    world = World(FINISHED, config=two(model_attempts=1), think_s=0.5)
    world.model.down = {"default": BROKEN, "backup": NO_KEY}
    await world.run_to_end()
    assert world.end.reason == Reason.MODEL_UNREACHABLE
    assert 1800 < world.now < 1810
    assert "default: The connection broke. shared/backup: The key is refused." in world.end.message


@virtual
async def test_a_cancel_ends_the_wait_at_once() -> None:
    world = World(FINISHED, config=two(model_attempts=1))
    world.model.down = {"default": BROKEN, "backup": BROKEN}
    later(100, world.cancel)
    await world.run_to_end()
    assert world.end.reason == Reason.CANCELLED and world.now < 105


@virtual
async def test_each_request_and_each_owner_begins_at_the_first_endpoint() -> None:
    world = World(calls(BASH), FINISHED, config=two())
    world.model.down = {"default": NO_KEY}
    world.on("ask", BEFORE, world.kill, skip=1)
    await world.run_to_end()
    assert asked(world) == ["default", "default", "backup", "default", "backup"]


@virtual
async def test_what_one_endpoint_answered_the_other_one_is_told_too() -> None:
    world = World(calls(BASH), calls(BASH), FINISHED, config=two())
    world.on("record_results", AFTER, lambda: world.model.down.update(default=NO_KEY), skip=1)
    await world.run_to_end()
    assert asked(world)[-1] == "backup"
    assert world.asked()[-1].count('"role":"tool"') == 2


@virtual
async def test_a_request_of_which_nothing_can_be_left_out_goes_to_the_fallback() -> None:
    world = World(FINISHED, config=two(model_context_window=8000))
    world.model.down = {"default": TOO_LONG}
    await world.run_to_end()
    assert asked(world) == ["default", "backup"] and world.end.reason == Reason.FINISHED


@virtual
async def test_a_request_that_does_not_fit_is_asked_again_with_less_of_the_old_output() -> None:
    output = "x" * 6000
    config = configured(model_context_window=400_000)
    world = World(*[calls(BASH)] * 6, FINISHED, config=config)
    world.sandboxes.tool = lambda _pod, order: Receipt(order.key, Outcome.OK, output)
    refused: list[int] = []

    def refuse() -> None:
        if len(world.turns) == 5 and not refused:
            refused.append(len(world.model.seen))
            world.model.failures = [TOO_LONG]

    world.on("ask", BEFORE, refuse, times=99)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    (first,) = refused
    bodies = [request.body for request in world.model.seen]
    assert len(bodies[first + 1]) < 0.7 * len(bodies[first])
    assert world.model.seen[first + 1].config.endpoint == "default"
    assert len(bodies[-1]) < len(bodies[first]), "and what was left out stays out"
    assert len(world.turns) == 7


# --- places at the endpoint ----------------------------------------------------------------------


@virtual
async def test_a_task_that_waits_for_a_place_is_queued_and_has_no_mark() -> None:
    world = World(FINISHED)
    world.gate.close()
    world.start()
    state = await world.until(e.Queued)
    summary = summarise(state, BEGIN)
    assert (summary.phase, summary.reason) == (Phase.QUEUED, Reason.QUEUED)
    assert summary.message == "Place 1 of 1 at endpoint work/default: it is closed."
    later(60, world.gate.open)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    marked = [seen.at for seen in world.seen if isinstance(seen.event, e.AskingMarked)]
    assert len(marked) == 1 and marked[0] >= 60
    phases = [phase for phase, _ in groupby(s.phase for s in world.summaries)]
    assert phases == [Phase.QUEUED, Phase.RUNNING, Phase.SUCCEEDED]


@virtual
async def test_an_owner_that_is_lost_in_the_queue_has_lost_no_request() -> None:
    world = World(FINISHED)
    world.gate.close()
    for n in range(1, 6):
        later(10.0 * n, world.kill)
    later(70, world.gate.open)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED and world.task.lost_requests == 0


@virtual
async def test_the_mark_of_a_failed_attempt_does_not_stay_while_the_next_one_is_queued() -> None:
    world = World(FINISHED)
    world.model.failures = [BROKEN]
    world.on("ask", BEFORE, world.gate.close)
    later(30, lambda: world.kill())
    later(60, world.gate.open)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.task.lost_requests == 1, "the failed one, and none of the owner that was lost"


@virtual
async def test_the_mark_is_the_only_write_between_a_place_and_the_request() -> None:
    world = World(*[calls(BASH)] * 3, FINISHED)
    wrote: list[str] = []
    world.tellers.append(lambda _who, what: wrote.append(what) if "wrote" in what else None)
    spans: dict[int, list[str]] = {}

    def watch() -> None:
        spans[len(world.model.seen)] = wrote.copy()

    world.on("ask", BEFORE, watch, times=99)
    admitted: list[int] = []
    world.witnesses.append(
        lambda seen: admitted.append(len(wrote)) if isinstance(seen.event, e.Admitted) else None
    )
    await world.run_to_end()
    for number, begin in enumerate(admitted):
        between = [what for what in spans[number][begin:] if "record_results" not in what]
        assert between == ["wrote: mark_asking"], f"request {number}: {between}"


@virtual
async def test_a_place_costs_no_write_where_there_is_one() -> None:
    world = World(*[calls(BASH)] * 9, FINISHED, tool_s=0.1, think_s=0.1)
    wrote: list[str] = []
    world.tellers.append(lambda _who, what: wrote.append(what) if "wrote" in what else None)
    await world.run_to_end()
    turns = [
        w for w in wrote if w in ("wrote: append", "wrote: mark_asking", "wrote: record_results")
    ]
    assert len(turns) == 3 * 10 + 1, "and the end"
    assert len(wrote) - len(turns) <= 6, "the sandbox, the end, and a status each second"


@virtual
async def test_an_endpoint_that_is_away_costs_nothing_and_the_fallback_is_asked_at_once() -> None:
    world = World(FINISHED, config=two())
    world.gate.away = {"default": Away("The breaker is open.", BEGIN + timedelta(hours=1))}
    await world.run_to_end()
    assert asked(world) == ["backup"] and world.now < 10
    assert world.task.lost_requests == 0
    assert world.model.seen[0].rid.endswith("t1-a1-e1")


@virtual
async def test_a_task_whose_only_endpoint_is_away_waits_for_it() -> None:
    world = World(FINISHED)
    world.gate.away = {"default": Away("The breaker is open.", BEGIN + timedelta(seconds=300))}
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED and 300 <= world.now < 310
    waiting = [s for s in world.summaries if s.reason is Reason.MODEL_UNREACHABLE]
    assert waiting and "The breaker is open." in waiting[0].message


@virtual
async def test_tickets_say_who_wants_what() -> None:
    world = World(calls(BASH), FINISHED, config=two())
    world.model.down = {"default": NO_KEY}
    await world.run_to_end()
    places = [(str(t.endpoint), t.running) for t in world.gate.seen]
    assert places == [
        ("work/default", False), ("shared/backup", False),
        ("work/default", True), ("shared/backup", True),
    ]  # fmt: skip
    assert {t.task for t in world.gate.seen} == {world.task.ref}
    assert all(t.tokens > 4000 and t.created == world.task.started for t in world.gate.seen)


@virtual
async def test_a_priority_that_changes_is_a_new_ticket() -> None:
    world = World(FINISHED)
    world.gate.close()
    owner = world.start()
    await world.until(e.Queued)
    assert owner.runner is not None
    owner.runner.notify(e.PriorityChanged(7))
    later(5, world.gate.open)
    await world.run_to_end()
    assert [ticket.priority for ticket in world.gate.seen] == [0, 7]
    assert [ticket.priority for ticket in world.gate.waiting] == []


# --- what it costs -------------------------------------------------------------------------------

DEAR = Price(input="2", output="6", cached_input="0.5")


def test_cost_is_exact_and_cached_tokens_have_their_own_price() -> None:
    usage = Usage(prompt=1_000_003, cached=400_000, completion=10, reasoning=5)
    assert cost(usage, DEAR) == Decimal("1.400066")
    assert cost(usage, replace(DEAR, cached_input="")) == Decimal("2.000066")
    assert cost(usage, None) == 0
    assert sum((cost(Usage(1, 0, 1, 0), DEAR) for _ in range(10**4)), Decimal(0)) == Decimal("0.08")


@virtual
async def test_a_turn_costs_what_its_endpoint_takes() -> None:
    config = replace(two(model_price=DEAR), fallbacks=(replace(BACKUP, price=Price("1", "1")),))
    world = World(calls(BASH, tokens=1000), FINISHED, config=config)
    world.on("ask", BEFORE, lambda: world.model.down.update(default=NO_KEY), skip=1)
    await world.run_to_end()
    assert [turn_cost(config, turn) for turn in world.turns] == [
        Decimal("0.002006"), Decimal("0.000011"),
    ]  # fmt: skip
    assert world.task.summary is not None and world.task.summary.cost == "0.002017"


@virtual
async def test_no_price_is_no_cost() -> None:
    world = World(FINISHED)
    await world.run_to_end()
    assert world.task.summary is not None and world.task.summary.cost == ""


@virtual
async def test_lost_requests_are_counted_with_an_estimate_unless_they_never_left() -> None:
    world = World(FINISHED, config=configured(model_price=DEAR))
    world.model.failures = [BROKEN, UNSENT]
    await world.run_to_end()
    summary = world.task.summary
    assert summary is not None and summary.lost_requests == 2
    first = next(seen.state.request for seen in world.seen if seen.state.request is not None)
    assert summary.lost_tokens == first.tokens > 1000
    spent = turn_cost(world.task.config, world.turns[0])
    assert summary.cost == f"{spent + lost_cost(world.task.config, first.tokens):.6f}"


@virtual
async def test_a_lost_owner_takes_no_tokens_along() -> None:
    world = World(FINISHED)
    world.on("ask", AFTER, world.kill)
    await world.run_to_end()
    assert world.task.lost_requests == 1 and world.task.lost_tokens > 1000


@virtual
async def test_lost_tokens_count_towards_the_limit() -> None:
    world = World(FINISHED, config=configured(limits=Limits(tokens=4000), model_attempts=9))
    world.model.down = {"default": BROKEN}
    await world.run_to_end()
    assert world.end.reason == Reason.TOKEN_LIMIT
    assert len(world.model.seen) == 1


@virtual
async def test_money_is_limited_before_the_request_that_would_be_too_much() -> None:
    config = configured(model_price=Price("1", "1"), limits=Limits(cost="0.012"))
    world = World(calls(BASH, tokens=3000), config=config)
    await world.run_to_end()
    assert world.end.reason == Reason.COST_LIMIT
    assert "limits.cost is 0.012" in world.end.message
    assert world.task.summary is not None
    assert Decimal("0.006") <= Decimal(world.task.summary.cost) <= Decimal("0.012")
    assert len(world.model.seen) == len(world.turns)


@virtual
async def test_a_reply_may_pass_a_limit_but_no_further_request_is_sent() -> None:
    config = configured(model_price=Price("1", "100"), limits=Limits(cost="0.5"))
    reply = calls(BASH, tokens=3000)
    long = RawReply("", "", reply.calls, "tool_calls", Usage(3000, 0, 9000, 0), "fake")
    world = World(long, config=config)
    await world.run_to_end()
    assert world.end.reason == Reason.COST_LIMIT and len(world.model.seen) == 1


@pytest.mark.parametrize("priced", [True, False])
@virtual
async def test_a_limit_of_money_does_not_stop_a_task_that_stays_below(priced: bool) -> None:
    price = DEAR if priced else None
    config = configured(model_price=price, limits=Limits(cost="1"))
    world = World(calls(BASH), FINISHED, config=config)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
