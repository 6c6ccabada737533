"""The judge of the proof: each way of breaking the promise is seen, and nothing else is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ratchet.core.records import (
    Call,
    End,
    EndOutcome,
    Outcome,
    Record,
    Reply,
    Rerun,
    Result,
    Start,
    Turn,
    Verdict,
    turn_hash,
)

from tests.proof.judging import Evidence, judge
from tests.unit.core.world import CONFIG

UID = "11111111-2222-3333-4444-555555555555"
KEY = f"{UID}/1/0"


def turn(outcome: Outcome = Outcome.OK, reruns: tuple[Rerun, ...] = ()) -> Turn:
    return Turn(
        number=1,
        epoch=1,
        generation=1,
        ledger="l",
        previous="start",
        request_digest="d",
        reply=Reply(Verdict.CALLS, calls=(Call(0, "abcdefghi", "bash", "{}"),)),
        reruns=reruns,
        results=(Result(0, KEY, outcome, "text"),),
    )


def journal(first: Turn) -> list[Record]:
    end = End(2, 1, turn_hash(first), EndOutcome.SUCCEEDED, "Complete", "done")
    return [Start(CONFIG, 1, "start"), first, end]


def evidence(first: Turn, *effects: str) -> Evidence:
    return Evidence(UID, journal(first), Counter(effects), ended=True)


def test_a_call_that_happened_once_and_is_recorded_so_is_in_order() -> None:
    assert not judge(evidence(turn(), KEY)).broken


def test_effects_of_other_tasks_are_none_of_its_business() -> None:
    assert not judge(evidence(turn(), KEY, "another/9/0", "another/9/0")).broken


def test_a_call_that_happened_twice_is_repeated() -> None:
    found = judge(evidence(turn(), KEY, KEY))
    assert (found.repeated, found.broken) == (1, True)
    assert found.remarks == (f"{KEY} happened 2 times, 1 permitted",)


def test_a_second_run_that_was_recorded_first_is_permitted() -> None:
    rerun = Rerun(0, f"{KEY}/r1", "unknown outcome", 1)
    assert not judge(evidence(turn(reruns=(rerun,)), KEY, KEY)).broken
    assert judge(evidence(turn(reruns=(rerun,)), KEY, KEY, KEY)).repeated == 1


def test_a_call_recorded_as_done_that_never_happened_is_lost() -> None:
    assert judge(evidence(turn())).lost == 1


def test_an_effect_that_no_record_speaks_of_is_lost() -> None:
    found = judge(evidence(turn(), KEY, f"{UID}/7/0"))
    assert (found.lost, found.repeated) == (1, 0)


def test_an_unknown_outcome_is_reported_whether_it_happened_or_not() -> None:
    for effects in ((), (KEY,)):
        found = judge(evidence(turn(Outcome.UNKNOWN), *effects))
        assert (found.unknown_reported, found.broken) == (1, False)


def test_a_call_recorded_as_not_run_that_happened_is_a_silent_unknown() -> None:
    assert judge(evidence(turn(Outcome.NOT_RUN), KEY)).unknown_silent == 1
    assert not judge(evidence(turn(Outcome.NOT_RUN))).broken


def test_a_task_that_did_not_end_is_stuck() -> None:
    assert judge(replace(evidence(turn(), KEY), ended=False)).stuck == 1


def test_a_missing_record_is_a_hole() -> None:
    whole = evidence(turn(), KEY)
    for missing in range(3):
        rest = [record for record in whole.records if record.number != missing]
        assert judge(replace(whole, records=rest)).holes, f"record {missing} was not missed"


def test_a_record_that_does_not_follow_is_a_hole() -> None:
    whole = evidence(turn(), KEY)
    changed = [whole.records[0], turn(Outcome.FAILED), whole.records[2]]
    assert judge(replace(whole, records=changed)).holes == 1


def test_a_call_without_a_result_is_a_hole_once_the_task_has_ended() -> None:
    found = judge(evidence(replace(turn(), results=None), KEY))
    assert found.holes >= 1


def test_a_history_that_the_model_refused_is_a_hole() -> None:
    assert judge(replace(evidence(turn(), KEY), refused_histories=2)).holes == 2
