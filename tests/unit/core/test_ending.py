"""Cancel, deadline, and races for the last record."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.records import EndOutcome, Outcome, Result, Turn
from ratchet.core.verdict import judge
from ratchet.fakes.model import calls
from ratchet.ports import JournalAway

from tests.unit.core.invariants import spend_is_counted
from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    FINISHED,
    READ,
    WRITE,
    World,
    configured,
    later,
    virtual,
)


@virtual
async def test_cancel_during_a_request_closes_it_at_once() -> None:
    world = World(FINISHED, think_s=100)
    world.on("ask", BEFORE, lambda: later(3, world.cancel))
    await world.run_to_end()
    assert (world.end.outcome, world.end.reason) == (EndOutcome.CANCELLED, Reason.CANCELLED)
    assert world.model.aborted == 1 and world.now < 4
    assert world.turns == []
    spend_is_counted(world)


@virtual
async def test_cancel_during_a_call_interrupts_it_and_records_how_it_ended() -> None:
    world = World(calls(BASH, WRITE), FINISHED, tool_s=100)
    world.on("run", BEFORE, lambda: later(3, world.cancel))
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.KILLED, Outcome.NOT_RUN]
    assert world.end.outcome is EndOutcome.CANCELLED and world.now < 6
    assert world.pod is not None and not world.pod.alive


@virtual
async def test_cancel_before_a_call_was_sent_says_that_it_never_began() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("append", AFTER, world.cancel)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.CANCELLED]
    assert world.effects == []


@virtual
async def test_a_call_on_its_way_when_the_task_is_cancelled_never_begins() -> None:
    world = World(calls(BASH), FINISHED)
    world.sandboxes.latency_s = 5.0

    def overtake() -> None:
        world.sandboxes.latency_s = 0.01
        world.cancel()

    world.on("run", BEFORE, lambda: later(1, overtake))
    await world.run_to_end()
    await asyncio.sleep(10)
    assert world.outcomes(1) == [Outcome.CANCELLED]
    assert world.effects == []


@virtual
async def test_cancel_between_a_reply_and_its_record_keeps_one_of_them() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("append", BEFORE, world.cancel)
    await world.run_to_end()
    assert world.end.outcome is EndOutcome.CANCELLED
    assert world.events(e.JournalBroken) == []


@virtual
async def test_a_late_reply_wins_over_the_end_and_then_the_end_follows() -> None:
    """Both are created under one name: the answer of the first create comes late."""
    world = World(calls(BASH), FINISHED)
    stalled = False

    async def answer_comes_late() -> None:
        nonlocal stalled
        if not stalled:
            stalled = True
            world.cancel()
            await asyncio.sleep(5)

    world.on("append", AFTER, answer_comes_late)
    await world.run_to_end()
    assert isinstance(world.task.journal[1], Turn)
    assert world.outcomes(1) == [Outcome.CANCELLED]
    assert (world.end.number, world.end.outcome) == (2, EndOutcome.CANCELLED)
    assert world.events(e.JournalBroken) == []


@virtual
async def test_a_reply_whose_answer_was_lost_is_adopted_by_the_end() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("append", AFTER, world.cancel)
    world.on("append", AFTER, JournalAway("the answer is lost"))
    await world.run_to_end()
    assert len(world.turns) == 1 and world.end.number == 2


@virtual
async def test_cancel_after_the_end_changes_nothing() -> None:
    world = World(FINISHED)
    world.on("append", AFTER, world.cancel, skip=1)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED


@virtual
async def test_a_finish_that_was_taken_wins_over_cancel() -> None:
    world = World(FINISHED)
    world.on("record_results", BEFORE, world.cancel)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED


@virtual
async def test_the_deadline_ends_a_request() -> None:
    world = World(FINISHED, config=configured(active_deadline_s=5), think_s=100)
    await world.run_to_end()
    assert world.end.reason == Reason.DEADLINE_EXCEEDED
    assert world.model.aborted == 1 and 5 <= world.now < 6


@virtual
async def test_the_deadline_ends_a_call_and_keeps_the_work() -> None:
    config = configured(active_deadline_s=10)
    world = World(calls(WRITE), calls(BASH), config=config)
    world.sandboxes.duration = lambda order: 100.0 if order.tool == "bash" else 1.0
    await world.run_to_end()
    assert world.end.reason == Reason.DEADLINE_EXCEEDED
    assert world.outcomes(2) == [Outcome.KILLED]
    assert world.end.patch is not None and "sum.py" in world.end.patch.inline


@virtual
async def test_the_deadline_counts_from_the_first_claim() -> None:
    world = World(FINISHED, config=configured(active_deadline_s=5), think_s=4)
    world.on("ask", BEFORE, lambda: later(3, world.kill))
    await world.run_to_end()
    assert world.end.reason == Reason.DEADLINE_EXCEEDED


@virtual
async def test_a_killed_owner_after_the_end_leaves_the_status_to_the_next() -> None:
    world = World(FINISHED)
    world.on("append", AFTER, world.kill, skip=1)
    await world.run_to_end()
    assert world.task.summary is not None and world.task.summary.reason == Reason.FINISHED
    assert len(world.model.seen) == 1


@virtual
async def test_an_unreachable_sandbox_does_not_hold_up_a_cancel() -> None:
    world = World(calls(BASH), FINISHED, tool_s=100)

    def out_of_reach() -> None:
        world.sandboxes.latency_s = 60
        world.cancel()

    world.on("run", BEFORE, lambda: later(3, out_of_reach))
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.UNKNOWN]
    assert world.now < 12


# --- foreign records -----------------------------------------------------------------------------


def foreign(world: World, **changes: object) -> Turn:
    (seen,) = [s for s in world.seen if isinstance(s.event, e.Replied)][:1]
    state = seen.state
    assert state.answer is not None
    turn = Turn(
        number=1, epoch=1, generation=1, ledger="", previous=state.head,
        request_digest=state.answer.digest, reply=state.answer.reply,
    )  # fmt: skip
    return replace(turn, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"previous": "0" * 64}, "does not follow"),
        ({"number": 2}, "stands where record 1 should be"),
    ],
)
@virtual
async def test_a_record_that_is_not_ours_stops_the_task_with_a_condition(
    changes: dict[str, object], words: str
) -> None:
    world = World(calls(BASH), FINISHED)

    def meddle() -> None:
        world.task.records[1] = foreign(world, **changes)

    world.on("append", BEFORE, meddle)
    await world.run_to_end(check=False)
    assert world.task.summary is not None
    assert world.task.summary.reason == Reason.JOURNAL_CONFLICT
    assert words in world.task.summary.message
    assert world.effects == []


@virtual
async def test_a_record_of_an_earlier_owner_that_fits_is_adopted() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("ask", BEFORE, world.kill)
    answer = calls(WRITE)

    def late_write_of_the_first_owner() -> None:
        reply = judge(
            answer, task_uid=world.task.ref.uid, turn=1, attempt=1, endpoint="default",
            tools=world.task.config.tools, check=lambda _t, _a: None,
        )  # fmt: skip
        world.task.records[1] = foreign(world, reply=reply)

    world.on("append", BEFORE, late_write_of_the_first_owner)
    await world.run_to_end()
    assert [effect.tool for effect in world.effects] == ["write_file"]
    assert world.turns[0].epoch == 1
    assert world.task.lost_requests == 2


@virtual
async def test_an_owner_that_went_to_sleep_does_nothing_when_it_wakes() -> None:
    world = World(calls(BASH), calls(WRITE), FINISHED)

    def stall() -> None:
        world.owners[0].frozen = world.now + 60
        world.start()

    world.on("run", BEFORE, stall)
    await world.run_to_end()
    work = world.owners[0].work
    assert work is not None
    state = await asyncio.wait_for(work, 600)
    assert state is not None and state.lost
    assert world.ran("bash") == world.ran("write_file") == 1


@virtual
async def test_results_that_an_earlier_owner_wrote_late_are_taken_as_they_are() -> None:
    """They are found when a re-run is to be recorded."""
    world = World(calls(READ), FINISHED)
    world.on("run", BEFORE, lambda: later(0.3, world.lose_shell))

    def late_results() -> None:
        turn = world.turns[0]
        late = Result(0, f"{world.task.ref.uid}/1/0", Outcome.UNKNOWN, "nobody knows")
        world.task.records[1] = replace(turn, results=(late,))

    world.on("record_rerun", BEFORE, late_results)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.UNKNOWN] and world.turns[0].reruns == ()
    assert world.end.reason == Reason.FINISHED
