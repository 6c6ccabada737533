"""How a task should have ended after a fault, beside what the outside ledger says. Pure.

docs/architecture.md, section 4, says what the next owner does, by who died.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ratchet.core.conditions import Reason
from ratchet.core.config import UnknownPolicy
from ratchet.core.policy import MAX_RERUNS
from ratchet.core.records import End, EndOutcome, Outcome, Record, Result, Turn, Verdict

from tests.proof.cluster.plan import OOM, Loses, Trial


def amiss(
    trial: Trial, policy: UnknownPolicy, status: Mapping[str, Any], records: Sequence[Record]
) -> Iterator[str]:
    """What is not as it should be with a task that has ended, in words."""
    turns = [record for record in records if isinstance(record, Turn)]
    unknown = [one for turn in turns for one in _unknown(turn)]
    kind = trial.kind
    if unknown and kind.loses in (Loses.NOTHING, Loses.OPERATOR):
        yield f"{unknown[0].key} is unknown, although its sandbox lived on"
    if unknown and policy is UnknownPolicy.RETRY and not _tried_often(turns, unknown):
        yield f"{unknown[0].key} is unknown, although onUnknownOutcome is Retry"
    yield from _wrong_end(policy, status, turns, bool(unknown), kind.loses)
    owner = (status.get("owner") or {}).get("epoch", 0)
    if kind.loses is Loses.OPERATOR and owner < 2:
        yield "no other operator took it on"
    generation = (status.get("sandbox") or {}).get("generation", 0)
    went_on = len(turns) > trial.turn and not _stopped_by(status, Reason.UNKNOWN_OUTCOME)
    if kind.loses is Loses.POD and went_on and generation < 2:
        yield "it has the same sandbox as before"
    if kind.loses is not Loses.POD and generation > 1:
        yield "it has a new sandbox, although the workspace of the first was still there"
    yield from _work_lost(records, generation)
    if kind is OOM and len(turns) >= trial.turn:
        yield from _not_out_of_memory(turns[trial.turn - 1])


def _wrong_end(
    policy: UnknownPolicy,
    status: Mapping[str, Any],
    turns: Sequence[Turn],
    unknown: bool,
    loses: Loses,
) -> Iterator[str]:
    phase, reason = status.get("phase"), status.get("reason")
    if unknown and policy is UnknownPolicy.FAIL:
        if not _stopped_by(status, Reason.UNKNOWN_OUTCOME):
            yield f"it ended as {phase} ({reason}), although a call is unknown and that means Fail"
        return
    finished = bool(turns) and turns[-1].reply.verdict is Verdict.FINISH
    if finished and loses is Loses.POD and _stopped_by(status, Reason.RESULT_LOST):
        return  # the sandbox went while the patch was taken
    if phase != EndOutcome.SUCCEEDED:
        yield f"it ended as {phase} ({reason}: {status.get('message')}), and should have succeeded"


def _work_lost(records: Sequence[Record], generation: int) -> Iterator[str]:
    """What the calls of the last sandbox did to its files, and is not in the patch."""
    end = records[-1] if records else None
    if not isinstance(end, End) or end.outcome is not EndOutcome.SUCCEEDED:
        return
    patch = end.patch.inline if end.patch is not None else ""
    there = [one for one in records if isinstance(one, Turn) and one.generation == generation]
    for turn in filter(_wrote, there):
        if f"+turn {turn.number}\n" not in patch:
            yield f"the patch has nothing of turn {turn.number}, whose call is recorded as Ok"


def _wrote(turn: Turn) -> bool:
    done = turn.result(0)
    return turn.reply.verdict is Verdict.CALLS and done is not None and done.outcome is Outcome.OK


def _stopped_by(status: Mapping[str, Any], reason: Reason) -> bool:
    return status.get("phase") == EndOutcome.FAILED and status.get("reason") == reason


def _unknown(turn: Turn) -> Iterator[Result]:
    yield from (one for one in turn.results or () if one.outcome is Outcome.UNKNOWN)


def _tried_often(turns: Sequence[Turn], unknown: Sequence[Result]) -> bool:
    """Whether the permitted re-runs are used up for the first of these."""
    of = next(turn for turn in turns if unknown[0] in (turn.results or ()))
    return len([again for again in of.reruns if again.index == unknown[0].index]) >= MAX_RERUNS


def _not_out_of_memory(turn: Turn) -> Iterator[str]:
    result = turn.result(0)
    if result is not None and result.outcome is Outcome.OK:
        yield f"{result.key} has had its memory, so nothing was tried"
