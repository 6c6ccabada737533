"""A journal that is not whole when the next owner reads it: the task stops and names the record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from ratchet.core.facts import Asking
from ratchet.edges import wire
from ratchet.ports import TaskRef

from tests.contract.journal_homes import ClusterHome
from tests.contract.test_journal import HASH, NOW, after, end, summary, turn
from tests.e2e.journals.hands import (
    create,
    delete,
    edit,
    exchange,
    grown,
    name_of,
    path_of,
    sign,
    stored,
)

pytestmark = pytest.mark.cluster


Spoil = Callable[[ClusterHome, TaskRef], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """What somebody does to the journal of two complete turns, the record that is named, and why."""

    spoil: Spoil
    number: int
    says: str
    ended: bool = False


def deleted(number: int) -> Spoil:
    return lambda home, task: delete(home, task, number)


def exchanged(number: int, change: Callable[[dict[str, Any]], None]) -> Spoil:
    return lambda home, task: exchange(home, task, number, change)


def patched(number: int, patch: dict[str, Any], part: str = "") -> Spoil:
    return lambda home, task: edit(home, task, number, patch, part)


def other_words(body: dict[str, Any]) -> None:
    body["spec"]["reply"]["text"] = "I never said that."


def signed_other_words(body: dict[str, Any]) -> None:
    other_words(body)
    sign(body)


def other_results(body: dict[str, Any]) -> None:
    body["status"]["results"][0]["content"] = "It never said that."


def no_results(body: dict[str, Any]) -> None:
    del body["status"]


def other_goal(body: dict[str, Any]) -> None:
    body["spec"]["start"]["config"] = body["spec"]["start"]["config"].replace("test", "world")


def other_end(body: dict[str, Any]) -> None:
    body["spec"]["end"]["outcome"] = "Succeeded"


def other_task(body: dict[str, Any]) -> None:
    body["spec"]["taskRef"]["uid"] = "0f3c9a1e-5555-4444-8888-121212121212"
    sign(body)


def without_digest(body: dict[str, Any]) -> None:
    del body["spec"]["digest"]


async def leave_a_gap(home: ClusterHome, task: TaskRef) -> None:
    await create(home, wire.to_object(task, turn(5)))


async def write_behind_the_end(home: ClusterHome, task: TaskRef) -> None:
    await create(home, wire.to_object(task, replace(turn(4), previous=HASH)))


async def bring_a_record_of_another_task(home: ClusterHome, task: TaskRef) -> None:
    """A record of another task with the label of this one."""
    other = await home.create("other")
    await grown(home, other)
    await edit(home, other, 1, {"metadata": {"labels": {"ratchet.run/task-uid": task.uid}}})


async def give_it_to_another_task(home: ClusterHome, task: TaskRef) -> None:
    other = await home.create("other")
    owner = {**wire.owner_reference(task), "name": other.name, "uid": other.uid}
    await edit(home, task, 2, {"metadata": {"ownerReferences": [owner]}})


async def record_a_rerun_too_late(home: ClusterHome, task: TaskRef) -> None:
    rerun = {"index": 0, "key": f"{task.uid}/2/0/r1", "reason": "I say so.", "generation": 1}
    await edit(home, task, 2, {"status": {"reruns": [rerun]}}, "status")


async def delete_the_last_after_the_status_counted_it(home: ClusterHome, task: TaskRef) -> None:
    journal, _ = await grown(home, task)
    await journal.summarise(summary(turns=2))
    await delete(home, task, 2)


async def delete_the_last_while_the_next_is_asked_for(home: ClusterHome, task: TaskRef) -> None:
    journal, _ = await grown(home, task)
    await journal.mark_asking(Asking(3, 1, HASH), summary(turns=1))
    await delete(home, task, 2)


CASES = {
    "record 0 deleted": Case(deleted(0), 0, "is missing: somebody deleted it"),
    "a turn deleted": Case(deleted(1), 1, "is missing: somebody deleted it"),
    "the labels of a turn removed": Case(
        patched(1, {"metadata": {"labels": None}}), 1, "is missing"
    ),
    "a reply edited": Case(exchanged(1, other_words), 1, "was edited: spec.digest"),
    "the last reply edited": Case(exchanged(2, other_words), 2, "was edited: spec.digest"),
    "a reply edited, with its digest": Case(
        exchanged(1, signed_other_words), 2, "does not follow from record 1"
    ),
    "results edited": Case(exchanged(1, other_results), 1, "was edited: status.digest"),
    "the last results edited": Case(exchanged(2, other_results), 2, "was edited: status.digest"),
    "results removed": Case(
        exchanged(1, no_results), 2, "stands behind record 1, which has no results"
    ),
    "a re-run recorded after the results": Case(
        record_a_rerun_too_late, 2, "was edited: status.digest"
    ),
    "the configuration edited": Case(exchanged(0, other_goal), 0, "was edited: spec.digest"),
    "the end edited": Case(exchanged(3, other_end), 3, "was edited: spec.digest", ended=True),
    "a record without a digest": Case(exchanged(2, without_digest), 2, "has no digest"),
    "a gap": Case(leave_a_gap, 3, "is missing, and all up to record 4"),
    "a record behind the end": Case(
        write_behind_the_end, 4, "stands behind the end of the journal", ended=True
    ),
    "a record of another task in its place": Case(
        exchanged(2, other_task), 2, "is of another task (uid 0f3c9a1e"
    ),
    "a record without its owner": Case(
        patched(2, {"metadata": {"ownerReferences": None}}), 2, "has nobody as its owner"
    ),
    "a record with another owner": Case(give_it_to_another_task, 2, "as its owner, not its task"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_the_task_stops_and_names_the_record(home: ClusterHome, name: str) -> None:
    case = CASES[name]
    task = await home.create()
    await grown(home, task, ended=case.ended)
    await case.spoil(home, task)
    await stops(
        home, task, f"AgentTurn {name_of(task, case.number)} (record {case.number}) ", case.says
    )


@pytest.mark.parametrize(
    "spoil",
    [delete_the_last_after_the_status_counted_it, delete_the_last_while_the_next_is_asked_for],
    ids=lambda spoil: spoil.__name__,
)
async def test_the_status_remembers_a_last_record_that_somebody_deleted(
    home: ClusterHome, spoil: Spoil
) -> None:
    task = await home.create()
    await spoil(home, task)
    await stops(home, task, f"AgentTurn {name_of(task, 2)} (record 2) is missing", "status knows")


async def test_a_foreign_record_with_the_label_of_the_task_stops_it(home: ClusterHome) -> None:
    task = await home.create()
    await grown(home, task)
    await bring_a_record_of_another_task(home, task)
    await stops(home, task, "AgentTurn other-", "(record 1) is of another task")


async def stops(home: ClusterHome, task: TaskRef, *says: str) -> None:
    """The next claim fails the task, says why, and leaves every record as it is."""
    before = await stored(home, task.namespace)
    assert await home.journals.claim(task, "two", NOW) is None
    status = (await home.get(task))["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "JournalConflict")
    for text in (*says, "Create the task again under a new name."):
        assert text in status["message"]
    conditions = {c["type"]: c for c in status["conditions"]}
    for kind in ("Stalled", "Failed", "Finished"):
        assert (conditions[kind]["status"], conditions[kind]["reason"]) == (
            "True", "JournalConflict"
        )  # fmt: skip
        assert says[0] in conditions[kind]["message"]
    assert await home.journals.claim(task, "three", NOW) is None
    assert await stored(home, task.namespace) == before


# --- what is no fault ----------------------------------------------------------------------------


async def test_a_whole_journal_is_gone_on_with(home: ClusterHome) -> None:
    task = await home.create()
    _, records = await grown(home, task)
    claimed = await home.journals.claim(task, "two", NOW)
    assert claimed is not None and list(claimed[0].records) == records


async def test_a_label_that_somebody_adds_is_no_fault(home: ClusterHome) -> None:
    task = await home.create()
    _, records = await grown(home, task)
    await edit(home, task, 1, {"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}})
    claimed = await home.journals.claim(task, "two", NOW)
    assert claimed is not None and list(claimed[0].records) == records


@pytest.mark.parametrize("spoiled", [False, True], ids=["whole", "beside a broken record"])
async def test_a_journal_of_a_newer_operator_is_left_to_it(
    home: ClusterHome, spoiled: bool
) -> None:
    task = await home.create()
    _, records = await grown(home, task)
    newer = wire.to_object(task, after(records[-1], end(3)))
    newer["spec"]["journalVersion"] = 99
    await create(home, newer)
    if spoiled:
        await exchange(home, task, 1, other_words)
    assert await home.journals.claim(task, "two", NOW) is None
    status = (await home.get(task))["status"]
    assert (status["phase"], status["reason"]) == ("Waiting", "JournalConflict")
    assert f"AgentTurn {name_of(task, 3)} (record 3)" in status["message"]
    assert "run a newer operator" in status["message"]
    if not spoiled:
        await home.api.request("DELETE", path_of(task, 3))
        assert await home.journals.claim(task, "three", NOW) is not None
