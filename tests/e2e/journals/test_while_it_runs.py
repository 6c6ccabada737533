"""A journal that somebody changes under a running loop: nothing is written over it, nothing hides it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from ratchet.core.facts import CallOrder
from ratchet.core.records import Turn
from ratchet.edges import wire
from ratchet.fakes.model import calls
from ratchet.ports import JournalRefused, OwnershipLost, TaskRef

from tests.contract.journal_homes import ClusterHome
from tests.contract.test_journal import after, claimed, end, opened, rerun, results, turn
from tests.e2e.journals.hands import (
    create,
    delete,
    edit,
    exchange,
    grown,
    name_of,
    sign,
    stored,
)
from tests.e2e.journals.play import BASH, FINISH, WRITE, Play
from tests.e2e.journals.test_taken_over import other_results, other_task, other_words

pytestmark = pytest.mark.cluster


# --- single writes -------------------------------------------------------------------------------


async def test_results_of_a_deleted_turn_are_refused(home: ClusterHome) -> None:
    task = await home.create()
    _, journal, first = await opened(home, task)
    await delete(home, task, 1)
    says = rf"AgentTurn {name_of(task, 1)} \(record 1\) is missing: somebody deleted it"
    with pytest.raises(JournalRefused, match=says):
        await journal.record_results(first, results(task))
    with pytest.raises(JournalRefused, match=says):
        await journal.record_rerun(first, rerun(task))
    assert list(await stored(home, task.namespace)) == [name_of(task, 0)]


async def test_results_of_a_turn_that_lost_its_owner_are_not_gone_on_with(
    home: ClusterHome,
) -> None:
    task = await home.create()
    _, journal, first = await opened(home, task)
    await edit(home, task, 1, {"metadata": {"ownerReferences": None}})
    with pytest.raises(JournalRefused, match=r"\(record 1\) has nobody as its owner"):
        await journal.record_results(first, results(task))


async def test_results_are_not_written_into_another_turn(home: ClusterHome) -> None:
    task = await home.create()
    _, journal, first = await opened(home, task)

    def another(body: dict[str, object]) -> None:
        other_words(body)
        sign(body)

    await exchange(home, task, 1, another)
    before = await stored(home, task.namespace)
    with pytest.raises(JournalRefused, match=r"\(record 1\) is not the record that it was"):
        await journal.record_results(first, results(task))
    assert await stored(home, task.namespace) == before


async def test_a_record_that_a_person_made_is_not_adopted(home: ClusterHome) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    forged = wire.to_object(task, after(claim, turn()))
    del forged["metadata"]["ownerReferences"]
    await create(home, forged)
    with pytest.raises(JournalRefused, match=r"\(record 1\) has nobody as its owner"):
        await journal.append(after(claim, turn()))


async def test_a_record_of_another_task_is_not_adopted(home: ClusterHome) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    foreign = wire.to_object(task, after(claim, turn()))
    other_task(foreign)
    await create(home, foreign)
    with pytest.raises(JournalRefused, match=r"\(record 1\) is of another task"):
        await journal.append(after(claim, turn()))


async def test_a_record_that_does_not_follow_is_not_adopted(home: ClusterHome) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    await create(home, wire.to_object(task, turn()))
    with pytest.raises(JournalRefused, match=r"\(record 1\) does not follow from record 0"):
        await journal.append(after(claim, turn()))


async def test_a_record_of_a_newer_operator_ends_the_loop_and_not_the_task(
    home: ClusterHome,
) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    newer = wire.to_object(task, after(claim, turn()))
    newer["spec"]["journalVersion"] = 99
    await create(home, newer)
    with pytest.raises(OwnershipLost, match="run a newer operator"):
        await journal.append(after(claim, turn()))


SPOILED: dict[str, tuple[Callable[[ClusterHome, TaskRef], Awaitable[None]], str]] = {
    "the first deleted": (lambda home, task: delete(home, task, 0), "record 0) is missing"),
    "one in the middle deleted": (lambda home, task: delete(home, task, 1), "record 1) is missing"),
    "the last deleted": (lambda home, task: delete(home, task, 2), "record 2) is missing"),
    "a reply edited": (
        lambda home, task: exchange(home, task, 1, other_words),
        "record 1) was edited",
    ),
    "the last results edited": (
        lambda home, task: exchange(home, task, 2, other_results),
        "record 2) was edited",
    ),
    "an owner taken away": (
        lambda home, task: edit(home, task, 1, {"metadata": {"ownerReferences": None}}),
        "record 1) has nobody",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
async def test_a_journal_that_was_changed_meanwhile_gets_no_end(
    home: ClusterHome, name: str
) -> None:
    spoil, says = SPOILED[name]
    task = await home.create()
    journal, records = await grown(home, task)
    await spoil(home, task)
    before = await stored(home, task.namespace)
    with pytest.raises(JournalRefused) as refusal:
        await journal.append(after(records[-1], end(3)))
    assert says in str(refusal.value)
    assert await stored(home, task.namespace) == before


async def test_an_end_that_does_not_fit_the_last_turn_is_not_written(home: ClusterHome) -> None:
    task = await home.create()
    journal, records = await grown(home, task)
    with pytest.raises(JournalRefused, match=r"record 3\) does not follow from record 2"):
        await journal.append(after(records[-2], end(3)))


async def test_a_stale_owner_learns_of_its_successor_and_not_of_a_fault(home: ClusterHome) -> None:
    task = await home.create()
    stale, records = await grown(home, task)
    await claimed(home, task)
    await delete(home, task, 1)
    with pytest.raises(OwnershipLost):
        await stale.append(after(records[-1], end(3)))


# --- whole runs ----------------------------------------------------------------------------------


async def test_a_turn_deleted_while_its_call_runs_stops_the_task(home: ClusterHome) -> None:
    play = await Play.of(home, calls(BASH), calls(FINISH), tool_s=0.5)
    play.began = lambda _: play.do(delete(home, play.task, 1))
    await ends_with_a_conflict(play, 1, "is missing: somebody deleted it")


async def test_an_earlier_turn_deleted_while_the_task_runs_keeps_it_from_succeeding(
    home: ClusterHome,
) -> None:
    play = await Play.of(home, calls(BASH), calls(WRITE), calls(FINISH), tool_s=0.5)

    def in_the_second_turn(order: CallOrder) -> None:
        if order.tool == "write_file":
            play.do(delete(home, play.task, 1))

    play.began = in_the_second_turn
    await ends_with_a_conflict(play, 1, "is missing: somebody deleted it")


async def test_results_edited_while_the_task_runs_keep_it_from_succeeding(
    home: ClusterHome,
) -> None:
    play = await Play.of(home, calls(BASH), calls(WRITE), calls(FINISH))
    play.sandboxes.duration = lambda order: 3.0 if order.tool == "write_file" else 0.0

    def in_the_second_turn(order: CallOrder) -> None:
        if order.tool == "write_file":
            play.do(exchange(home, play.task, 1, other_results))

    play.began = in_the_second_turn
    await ends_with_a_conflict(play, 1, "was edited: status.digest")


async def ends_with_a_conflict(play: Play, number: int, says: str) -> None:
    async with asyncio.timeout(60):
        state = await play.run()
    assert state is not None and state.broken
    await asyncio.gather(*play.work)
    status = (await play.home.get(play.task))["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "JournalConflict")
    assert f"AgentTurn {name_of(play.task, number)} (record {number}) {says}" in status["message"]
    left = await stored(play.home, play.task.namespace)
    assert not [item for item in left.values() if item["spec"]["kind"] == "End"]
    assert play.task.uid in play.sandboxes.removed
    assert await play.run() is None


async def test_a_task_that_nobody_disturbs_succeeds(home: ClusterHome) -> None:
    play = await Play.of(home, calls(BASH), calls(WRITE), calls(FINISH))
    async with asyncio.timeout(60):
        await play.run()
    left = await stored(home, play.task.namespace)
    kinds = [left[name_of(play.task, n)]["spec"]["kind"] for n in range(len(left))]
    assert kinds == ["Start", "Turn", "Turn", "Turn", "End"]
    assert isinstance(wire.from_object(play.task, left[name_of(play.task, 3)]), Turn)
    assert await home.phase(play.task) == "Succeeded"
