"""The API server is away: nothing new is begun, what runs goes on, and then it resumes."""

from __future__ import annotations

from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.records import Outcome
from ratchet.fakes.model import calls
from ratchet.ports import JournalAway

from tests.unit.core.invariants import spend_is_counted
from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    FINISHED,
    JOURNAL_OPERATIONS,
    World,
    later,
    virtual,
)


@virtual
async def test_a_call_under_way_goes_on_and_its_result_is_recorded_later() -> None:
    world = World(calls(BASH), FINISHED, tool_s=5)
    world.on("append", AFTER, lambda: later(1, lambda: world.api_away(20)))
    await world.run_to_end()
    assert world.ran("bash") == 1 and world.outcomes(1) == [Outcome.OK]
    assert world.end.reason == Reason.FINISHED


@virtual
async def test_no_request_is_sent_ahead_while_the_api_server_is_known_to_be_away() -> None:
    world = World(calls(BASH), FINISHED, tool_s=5)
    world.on("append", AFTER, lambda: later(1, lambda: world.api_away(60)))
    sent: list[float] = []
    world.on("ask", BEFORE, lambda: sent.append(world.now), times=99)
    await world.run_to_end()
    before, *rest = sent
    assert before < 1 and all(at > 60 for at in rest[1:])
    assert len(world.events(e.AskWithdrawn)) <= 1


@virtual
async def test_a_request_under_way_is_kept_and_its_reply_recorded_later() -> None:
    world = World(calls(BASH), FINISHED, think_s=5)
    world.on("mark_asking", AFTER, lambda: later(1, lambda: world.api_away(20)))
    await world.run_to_end()
    assert len(world.model.seen) == 2
    assert world.events(e.AskWithdrawn) == []
    spend_is_counted(world)


@virtual
async def test_no_call_begins_while_its_turn_cannot_be_recorded() -> None:
    world = World(calls(BASH), FINISHED, think_s=5)
    world.on("mark_asking", AFTER, lambda: later(1, lambda: world.api_away(20)))
    await world.run_to_end()
    (effect,) = world.effects
    assert len(effect.journal) == 2


@virtual
async def test_six_minutes_are_waited_out_with_few_tries() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("append", AFTER, lambda: world.api_away(360))
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert len(world.events(e.JournalFailed)) < 160


@virtual
async def test_an_answer_lost_after_every_kind_of_write_changes_nothing() -> None:
    for operation in JOURNAL_OPERATIONS:
        world = World(calls(BASH, BASH), calls(BASH), FINISHED)
        for skip in range(3):
            world.on(operation, AFTER, JournalAway("the answer is lost"), skip=skip)
        await world.run_to_end()
        assert world.end.reason == Reason.FINISHED
        assert world.ran("bash") == 3
        assert [turn.epoch for turn in world.turns] == [1, 1, 1]
