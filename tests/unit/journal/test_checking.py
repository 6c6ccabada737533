"""What is wrong with a journal is named, record by record; what is right passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from ratchet.edges import checking, wire

from tests.unit.journal.saved import Object, journal, sign, sign_all

Spoil = Callable[[list[Object]], None]


def spoiled(spoil: Spoil, shape: str = "taken_over") -> checking.Checked:
    """A journal of two turns with results and an end, after somebody had his hands on it."""
    task, turns = journal(shape)
    spoil(turns)
    return checking.check(task, turns)


def faults(spoil: Spoil, shape: str = "taken_over") -> list[str]:
    return [fault.text for fault in spoiled(spoil, shape).faults]


def change(number: int, path: str, value: Any, *, then: Spoil = lambda _: None) -> Spoil:
    def spoil(turns: list[Object]) -> None:
        *parents, last = path.split(".")
        place: Any = turns[number]
        for parent in parents:
            place = place[int(parent) if parent.isdecimal() else parent]
        place[int(last) if last.isdecimal() else last] = value
        then(turns)

    return spoil


def without(*numbers: int) -> Spoil:
    def spoil(turns: list[Object]) -> None:
        turns[:] = [turn for turn in turns if turn["spec"]["number"] not in numbers]

    return spoil


def test_a_whole_journal_has_no_fault() -> None:
    checked = spoiled(lambda _: None)
    assert checked.faults == ()
    assert [record.number for record in checked.records] == [0, 1, 2, 3, 4]
    assert checked.ended


def test_the_order_in_which_records_are_listed_does_not_matter() -> None:
    assert spoiled(list.reverse) == spoiled(lambda _: None)


def test_the_newest_records_may_be_missing_as_far_as_the_rest_can_tell() -> None:
    assert faults(without(3, 4)) == []
    assert not spoiled(without(4)).ended


def forget_the_reruns(turns: list[Object]) -> None:
    del turns[2]["status"]["reruns"]
    sign_all(turns)


CASES: dict[str, tuple[Spoil, list[str]]] = {
    "record 0 is gone": (without(0), ["-t0 (record 0) is missing: somebody"]),
    "one in the middle is gone": (without(2), ["-t2 (record 2) is missing: somebody"]),
    "several are gone": (without(1, 2, 3), ["-t1 (record 1) is missing, and all up to record 3"]),
    "two gaps": (without(1, 3), ["(record 1) is missing", "(record 3) is missing"]),
    "a record is there twice": (
        lambda turns: turns.append(turns[1]),
        ["(record 1) is there twice"],
    ),
    "the configuration is another": (
        change(0, "spec.start.config", "{}"),
        ["(record 0) was edited: spec.digest"],
    ),
    "the reply is another": (
        change(1, "spec.reply.text", "I never said that."),
        ["(record 1) was edited: spec.digest"],
    ),
    "the reply is another, and signed": (
        change(1, "spec.reply.text", "x", then=lambda turns: sign(turns[1])),
        ["(record 2) does not follow from record 1"],
    ),
    "the results are others": (
        change(2, "status.results.0.content", "It never said that."),
        ["(record 2) was edited: status.digest"],
    ),
    "the results are gone": (
        change(2, "status", {}),
        ["(record 3) stands behind record 2, which has no results"],
    ),
    "the end is another": (
        change(4, "spec.end.outcome", "Failed"),
        ["(record 4) was edited: spec.digest"],
    ),
    "a record has the number of another": (
        change(4, "spec.number", 3),
        ["(record 3) has the number of mend-"],
    ),
    "the record is of another task": (
        change(2, "spec.taskRef.uid", "11111111-1111"),
        ["(record 2) is of another task (uid 11111111-1111"],
    ),
    "the record has no owner": (
        change(2, "metadata.ownerReferences", []),
        ["(record 2) has nobody as its owner"],
    ),
    "two things at once": (
        change(1, "spec.epoch", 9, then=without(3)),
        ["(record 1) was edited", "(record 3) is missing"],
    ),
    "the results are of other calls": (
        change(1, "status.results.0.index", 1, then=sign_all),
        ["(record 1) has results of the calls [1], and its calls are [0]"],
    ),
    "a result is under the key of another call": (
        change(1, "status.results.0.key", "u/9/9", then=sign_all),
        ["(record 1) has a result of call 0 under the key u/9/9"],
    ),
    "a result is under a re-run that is not recorded": (
        forget_the_reruns,
        ["(record 2) has a result of call 0 under the key"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named(name: str) -> None:
    spoil, wanted = CASES[name]
    told = faults(spoil)
    assert len(told) == len(wanted), told
    for text, part in zip(told, wanted, strict=True):
        assert part in text and text.startswith("AgentTurn mend-") and text.endswith(".")


def test_a_record_behind_the_end_is_named() -> None:
    task, turns = journal("taken_over")
    behind = copy.deepcopy(turns[3])
    behind["metadata"]["name"] = behind["metadata"]["name"].replace("-t3", "-t5")
    behind["spec"]["number"] = 5
    del behind["status"]
    sign(behind)
    (fault,) = checking.check(task, [*turns, behind]).faults
    assert "(record 5) stands behind the end of the journal" in fault.text


def test_only_record_0_is_a_start() -> None:
    task, turns = journal("plain")
    second = copy.deepcopy(turns[0])
    second["metadata"]["name"] = second["metadata"]["name"].replace("-t0", "-t1")
    second["spec"]["number"] = 1
    sign(second)
    (fault,) = checking.check(task, [turns[0], second]).faults
    assert "(record 1) is of kind Start" in fault.text


def test_a_forger_who_makes_all_digests_anew_is_not_noticed() -> None:
    """Digests are no signatures: whoever may write AgentTurns can write a journal."""
    assert faults(change(1, "spec.reply.text", "x", then=sign_all)) == []


def test_records_of_the_epoch_that_reads_them_are_from_elsewhere() -> None:
    task, turns = journal("taken_over")
    assert checking.check(task, turns, below=4).faults == ()
    fenced, written, closed = checking.check(task, turns, below=3).faults
    assert "(record 2) is of epoch 3" in fenced.text
    assert "(record 3) is of epoch 3" in written.text and "(record 4)" in closed.text
    assert "the status is older than the journal" in fenced.text


def test_the_first_fault_is_raised_and_a_later_version_before_all() -> None:
    task, turns = journal("taken_over")
    change(1, "spec.epoch", 9)(turns)
    with pytest.raises(wire.Unreadable, match=r"\(record 1\) was edited"):
        checking.read(task, turns)
    change(3, "spec.journalVersion", 99)(turns)
    with pytest.raises(wire.NewerJournal, match=r"\(record 3\) has journalVersion 99"):
        checking.read(task, turns)


@pytest.mark.parametrize(
    ("status", "known"),
    [
        ({}, -1),
        ({"turns": 0}, -1),
        ({"turns": 3}, 3),
        ({"turns": 3, "asking": {"turn": 5, "attempt": 1, "requestDigest": "d"}}, 4),
        ({"turns": 3, "asking": {"turn": 4, "attempt": 1, "requestDigest": "d"}}, 3),
        ({"asking": {"turn": 1, "attempt": 1, "requestDigest": "d"}}, 0),
        ({"sandbox": {"generation": 1, "ledger": "l"}}, 0),
        ({"sandbox": {"generation": 1}}, -1),
    ],
)
def test_the_status_knows_of_records(status: Object, known: int) -> None:
    assert checking.last_known({"status": status}) == known
