"""What the outside ledger and the journal together say of a task. Pure.

Every call with an effect leaves a line `<task uid>/<turn>/<index>` in the outside ledger: its
idempotency key without the mark of a re-run. So each line can be matched with the call that
should have caused it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ratchet.core.keys import call_key
from ratchet.core.records import Call, End, Outcome, Record, Start, Turn, turn_hash

from tests.proof.rows import Findings

DONE = (Outcome.OK, Outcome.FAILED)
"""Outcomes that say: it happened, to its end."""
NOT_BEGUN = (Outcome.NOT_RUN, Outcome.DENIED, Outcome.CANCELLED)
"""Outcomes that say: it did not happen."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one task after a run."""

    task_uid: str
    records: Sequence[Record]
    """The journal in order of its numbers, as the API server returned it."""
    effects: Counter[str]
    """Lines of the outside ledger, of this task and possibly of others."""
    ended: bool
    """Whether its status says that it has ended."""
    marked_calls: frozenset[str] = frozenset({"bash"})
    """Tools whose calls leave a line."""
    refused_histories: int = 0
    """Requests of this task that the strict model refused because of their history."""


def judge(evidence: Evidence) -> Findings:
    """What is wrong with a task, and which outcomes of it are recorded as unknown."""
    found = _sum(_of_calls(evidence), _of_the_chain(evidence)) + _of_strays(evidence)
    if not evidence.ended:
        found += Findings(stuck=1, remarks=(f"task {evidence.task_uid} did not end",))
    return found


def _sum(parts: Iterator[Findings], first: Findings) -> Findings:
    """Findings added up."""
    for part in parts:
        first += part
    return first


def _turns(evidence: Evidence) -> list[Turn]:
    return [record for record in evidence.records if isinstance(record, Turn)]


def _of_calls(evidence: Evidence) -> Iterator[Findings]:
    for turn in _turns(evidence):
        if turn.reply.verdict.runs:
            for call in turn.reply.calls:
                if call.tool in evidence.marked_calls:
                    yield _of_call(evidence, turn, call)


def _of_call(evidence: Evidence, turn: Turn, call: Call) -> Findings:
    key = call_key(evidence.task_uid, turn.number, call.index)
    happened = evidence.effects[key]
    permitted = 1 + len([rerun for rerun in turn.reruns if rerun.index == call.index])
    found = Findings()
    if happened > permitted:
        found += Findings(
            repeated=happened - permitted,
            remarks=(f"{key} happened {happened} times, {permitted} permitted",),
        )
    result = turn.result(call.index)
    if result is None:
        if evidence.ended:
            found += Findings(holes=1, remarks=(f"{key} has no result",))
        return found
    if result.outcome in DONE and not happened:
        found += Findings(lost=1, remarks=(f"{key} is recorded as done and never happened",))
    if result.outcome in NOT_BEGUN and happened:
        found += Findings(
            unknown_silent=1, remarks=(f"{key} is recorded as {result.outcome} and happened",)
        )
    if result.outcome is Outcome.UNKNOWN:
        found += Findings(unknown_reported=1)
    return found


def _of_the_chain(evidence: Evidence) -> Findings:
    faults = list(_breaks(evidence.records, evidence.ended))
    faults += ["the model refused a history"] * evidence.refused_histories
    return Findings(
        holes=len(faults), remarks=tuple(f"{evidence.task_uid}: {fault}" for fault in faults)
    )


def _breaks(records: Sequence[Record], ended: bool) -> Iterator[str]:
    if not records or not isinstance(records[0], Start):
        yield "there is no record 0"
        return
    head = records[0].hash
    for number, record in enumerate(records[1:], 1):
        if isinstance(record, Start) or record.number != number:
            yield f"record {record.number} stands where {number} should be"
            return
        if record.previous != head:
            yield f"record {number} does not follow from those before it"
        head = turn_hash(record) if isinstance(record, Turn) else ""
    if ended and not isinstance(records[-1], End):
        yield "there is no end"


def _of_strays(evidence: Evidence) -> Findings:
    """Effects of this task that no recorded call speaks of."""
    mine = {line for line in evidence.effects if line.startswith(f"{evidence.task_uid}/")}
    known = {
        call_key(evidence.task_uid, turn.number, call.index)
        for turn in _turns(evidence)
        for call in turn.reply.calls
    }
    strays = sorted(mine - known)
    return Findings(
        lost=len(strays), remarks=tuple(f"{stray} happened and is not recorded" for stray in strays)
    )
