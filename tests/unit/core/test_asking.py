"""Asking the model: failures, retries, repairs, nudges, limits, and what is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.config import Completion, Limits
from ratchet.core.evolve import begin, evolve
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.records import End, EndOutcome, Outcome, Reply, Result, Start, Verdict, start_hash
from ratchet.core.replies import FailureKind, ModelFailure, RawCall, RawReply
from ratchet.fakes.clock import BEGIN
from ratchet.fakes.model import calls, says
from ratchet.ports import JournalAway

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

AWAY = JournalAway("no answer")
BAD = RawReply("", "", (RawCall("bash", "{"),), "tool_calls")


@virtual
async def test_a_full_server_is_waited_for_without_counting_attempts() -> None:
    world = World(FINISHED, config=configured(model_attempts=1))
    world.model.failures = [BUSY] * 5
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    spend_is_counted(world, waits=5)


@virtual
async def test_retry_after_is_honoured() -> None:
    world = World(FINISHED, think_s=1)
    world.model.failures = [ModelFailure(FailureKind.WAIT, "full", 429, retry_after_s=90)]
    await world.run_to_end()
    assert world.now > 91


@virtual
async def test_broken_requests_are_tried_again_and_are_lost_spend() -> None:
    world = World(FINISHED)
    world.model.failures = [BROKEN, BROKEN]
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.task.lost_requests == 2
    spend_is_counted(world)


@virtual
async def test_attempts_end() -> None:
    world = World(FINISHED, config=configured(model_attempts=3))
    world.model.failures = [BROKEN] * 3
    await world.run_to_end()
    assert world.end.reason == Reason.MODEL_UNREACHABLE
    assert len(world.model.seen) == 3


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        (FailureKind.CONTEXT, 400, Reason.CONTEXT_FULL),
        (FailureKind.CONFIGURATION, 401, Reason.MODEL_UNAUTHORIZED),
        (FailureKind.CONFIGURATION, 404, Reason.MODEL_REJECTED),
        (FailureKind.REQUEST, 400, Reason.MODEL_REJECTED),
    ],
)
@virtual
async def test_what_no_retry_mends_ends_the_task(
    kind: FailureKind, status: int, reason: Reason
) -> None:
    world = World(FINISHED)
    world.model.failures = [ModelFailure(kind, "no", status)]
    await world.run_to_end()
    assert (world.end.outcome, world.end.reason) == (EndOutcome.FAILED, reason)
    assert len(world.model.seen) == 1


@virtual
async def test_text_is_answered_once_with_the_way_to_end() -> None:
    world = World(says("I am done"), FINISHED)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert "call the tool `finish`" in world.asked()[1]


@virtual
async def test_text_twice_is_no_end_with_explicit_completion() -> None:
    world = World(says("I am done"))
    await world.run_to_end()
    assert (world.end.outcome, world.end.reason) == (EndOutcome.FAILED, Reason.NOT_FINISHED)
    assert len(world.turns) == 2


@virtual
async def test_text_twice_is_the_result_with_completion_text() -> None:
    world = World(says("a"), says("It is 2."), config=configured(completion=Completion.TEXT))
    await world.run_to_end()
    assert (world.end.outcome, world.end.reason) == (EndOutcome.SUCCEEDED, Reason.TEXT_ACCEPTED)
    assert world.end.summary == "It is 2."
    assert world.end.patch is not None


@virtual
async def test_a_call_between_two_texts_starts_the_count_again() -> None:
    world = World(says("a"), calls(BASH), says("b"), FINISHED)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED


@virtual
async def test_bad_replies_are_repaired_as_often_as_allowed() -> None:
    world = World(BAD, BAD, FINISHED, config=configured(model_repairs=2))
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert "not JSON" in world.asked()[1]


@virtual
async def test_repairs_end_and_the_raw_text_is_kept() -> None:
    world = World(BAD, config=configured(model_repairs=2))
    await world.run_to_end()
    assert world.end.reason == Reason.REPAIRS_EXHAUSTED
    assert [turn.reply.verdict for turn in world.turns] == [Verdict.MALFORMED] * 3
    assert all(turn.reply.raw for turn in world.turns)
    assert world.effects == []


@virtual
async def test_turns_are_limited() -> None:
    world = World(calls(BASH), config=configured(limits=Limits(turns=2)))
    await world.run_to_end()
    assert world.end.reason == Reason.TURN_LIMIT
    assert len(world.model.seen) == len(world.turns) == 2
    assert world.turns[-1].results is not None


@virtual
async def test_tokens_are_limited_by_what_was_recorded() -> None:
    """And by what the next request will take at least: it is not sent if that is too much."""
    config = configured(limits=Limits(tokens=26_000))
    world = World(calls(BASH, tokens=10_000), config=config)
    await world.run_to_end()
    assert world.end.reason == Reason.TOKEN_LIMIT
    assert len(world.turns) == len(world.model.seen) == 2
    assert "The task used 20002 tokens, the next request takes about 6" in world.end.message


@virtual
async def test_an_answer_to_another_question_is_thrown_away() -> None:
    """The next request leaves while results are recorded; what is stored in the end may differ."""
    world = World(calls(BASH), FINISHED, think_s=0.05)

    async def another_wrote_first() -> None:
        await asyncio.sleep(1)
        turn = world.turns[0]
        result = turn.reply.calls[0]
        stored = Result(0, f"{world.task.ref.uid}/1/{result.index}", Outcome.OK, "another text")
        world.task.records[1] = replace(turn, results=(stored,))

    world.latency = lambda: 0.2
    world.on("record_results", BEFORE, another_wrote_first)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert "another text" in world.asked()[-1]
    assert world.task.lost_requests == 1
    spend_is_counted(world)


def test_a_reply_to_another_question_uses_its_attempt_up() -> None:
    """The next one is asked under another id, even if this reply came when it was wanted no more."""
    state = begin(
        task_uid="task", epoch=1, started=BEGIN, deadline=None, cancelled=False, asking=None,
        lost_requests=0, sandbox=SandboxRef(), records=(Start(configured(), 1),),
    )  # fmt: skip
    state = evolve(state, e.Replied(1, "another question", Reply(Verdict.TEXT, "an answer")))
    assert (state.answer, state.attempt, state.lost_requests) == (None, 2, 1)


@virtual
async def test_a_request_of_a_lost_owner_is_counted_and_asked_again() -> None:
    world = World(FINISHED)
    world.on("ask", AFTER, world.kill)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.task.lost_requests == 1
    assert [request.rid[-5:] for request in world.model.seen] == ["a1-e1", "a2-e2"]


@virtual
async def test_a_request_left_behind_is_counted_once_by_owners_that_write_nothing() -> None:
    world = World(FINISHED)
    world.on("ask", AFTER, world.kill)
    world.on("claim", AFTER, world.kill, skip=1, times=4)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.task.lost_requests == 1
    assert [request.rid[-5:] for request in world.model.seen] == ["a1-e1", "a2-e6"]


@virtual
async def test_a_request_that_is_answered_after_all_is_not_counted() -> None:
    world = World(FINISHED)
    world.on("append", AFTER, world.kill)
    await world.run_to_end()
    assert world.task.lost_requests == 0


def test_a_request_of_an_owner_that_ended_the_task_instead_is_counted() -> None:
    mark = Asking(1, 1, "d", tokens=700)
    start = Start(configured(), 1)
    end = End(
        1, 1, start_hash(start.config.to_json()), EndOutcome.CANCELLED, "Cancelled", "It was."
    )
    state = begin(
        task_uid="task", epoch=2, started=BEGIN, deadline=None, cancelled=True, asking=mark,
        lost_requests=2, sandbox=SandboxRef(), records=(start, end), lost_tokens=100,
    )  # fmt: skip
    assert (state.lost_requests, state.lost_tokens) == (3, 800)


@virtual
async def test_three_owners_lost_at_one_turn_end_the_task() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("ask", AFTER, world.kill, skip=1, times=3)
    await world.run_to_end()
    assert world.end.reason == Reason.OWNERS_LOST
    assert world.task.lost_requests == 3
    marks = [marked.asking for marked in world.events(e.AskingMarked) if marked.asking.turn == 2]
    assert world.task.lost_tokens == sum(mark.tokens for mark in marks) > 0
    assert world.ran("bash") == 1


@virtual
async def test_owners_that_stop_while_a_full_server_is_waited_for_lose_no_request() -> None:
    world = World(FINISHED, think_s=1)
    world.model.failures = [ModelFailure(FailureKind.WAIT, "full", 429, retry_after_s=60)] * 5
    for n in range(1, 5):
        asyncio.get_running_loop().call_later(20.0 * n, world.kill)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.task.lost_requests == 0


@virtual
async def test_owners_lost_at_different_turns_do_not_add_up() -> None:
    world = World(calls(BASH), calls(BASH), calls(BASH), FINISHED)
    for turn in range(4):
        world.on("ask", AFTER, world.kill, skip=2 * turn)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED


@virtual
async def test_a_request_is_sent_when_its_mark_is_written() -> None:
    world = World(calls(BASH), FINISHED)
    world.latency = lambda: 0.5
    await world.run_to_end()
    marked = [seen.at for seen in world.seen if isinstance(seen.event, e.AskingMarked)]
    replied = [seen.at for seen in world.seen if isinstance(seen.event, e.Replied)]
    assert [b - a for a, b in zip(marked, replied, strict=True)] == pytest.approx([2.5, 2.5])


@virtual
async def test_a_request_goes_out_while_the_results_before_it_are_recorded() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("record_results", BEFORE, lambda: asyncio.sleep(30))
    await world.run_to_end()
    assert len(world.model.seen) == 2 and world.now < 40
    times = {type(seen.event): seen.at for seen in world.seen}
    assert times[e.Replied] < 10 < times[e.ResultsStored]


@virtual
async def test_no_request_goes_out_whose_mark_is_not_written() -> None:
    world = World(FINISHED)
    world.on("mark_asking", BEFORE, AWAY)
    world.on("mark_asking", BEFORE, world.kill)
    await world.run_to_end()
    assert [request.rid[-5:] for request in world.model.seen] == ["a1-e2"]
    assert world.task.lost_requests == 0


@virtual
async def test_an_owner_that_is_none_any_more_asks_nobody() -> None:
    world = World(FINISHED)

    async def stand_still() -> None:
        world.start()
        world.owners[0].frozen = world.now + 3600
        await asyncio.sleep(3600)

    world.on("mark_asking", BEFORE, stand_still)
    await world.run_to_end()
    assert [request.rid[-5:] for request in world.model.seen] == ["a1-e2"]


@virtual
async def test_an_attempt_that_is_given_up_is_counted_and_its_number_not_used_again() -> None:
    world = World(calls(BASH), FINISHED, think_s=5)
    world.on("ask", BEFORE, lambda: later(1, world.lose_pod), skip=1)
    await world.run_to_end()
    (withdrawn,) = world.events(e.AskWithdrawn)
    assert (withdrawn.turn, withdrawn.attempt) == (2, 1) and withdrawn.tokens > 0
    assert [request.rid[-8:] for request in world.model.seen] == [
        "t1-a1-e1",
        "t2-a1-e1",
        "t2-a2-e1",
    ]
    spend_is_counted(world)
