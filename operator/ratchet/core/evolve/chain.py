"""How a journal is read: the state at a claim, and what fits the chain of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.evolve.asking import with_lost, with_request
from ratchet.core.evolve.dispatch import evolve
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.policy import MAX_OWNERS_LOST, fail
from ratchet.core.records import End, Start, Turn, start_hash
from ratchet.core.state import Sandbox, State
from ratchet.core.transcript import History


def begin(
    *,
    task_uid: str,
    epoch: int,
    started: datetime,
    deadline: datetime | None,
    cancelled: bool,
    asking: Asking | None,
    lost_requests: int,
    sandbox: SandboxRef,
    records: Sequence[Start | Turn | End],
    lost_tokens: int = 0,
    priority: int = 0,
) -> State:
    """The state at a claim: the journal and the facts of the status, folded."""
    start = records[0]
    if not isinstance(start, Start):
        raise ValueError(f"the journal of task {task_uid} does not begin with record 0")
    state = State(
        task_uid=task_uid,
        config=start.config,
        epoch=epoch,
        started=started,
        deadline=deadline,
        head=start.hash or start_hash(start.config.to_json()),
        sandbox=Sandbox(sandbox, fenced=not sandbox.ledger),
        cancelled=cancelled,
        lost_requests=lost_requests,
        lost_tokens=lost_tokens,
        priority=priority,
        history=History.of(start.config),
    )
    for record in records[1:]:
        fault = misfit(state, record)
        if fault:
            return evolve(state, e.JournalBroken(fault))
        event = e.EndStored(record) if isinstance(record, End) else e.TurnStored(_as_turn(record))
        state = evolve(state, event)
    return with_request(_resume_asking(state, asking))


def misfit(state: State, record: Start | Turn | End) -> str:
    """Why a stored record cannot be the next link of this journal; empty if it can.

    Said of a record that somebody else wrote under the name that is ours to write.
    """
    number = len(state.turns) + 1
    if isinstance(record, Start) or record.number != number:
        return f"Record {record.number} stands where record {number} should be."
    if state.open_turn is not None:
        return f"Record {number} was written before the results of turn {number - 1}."
    if record.previous != state.head:
        return (
            f"Record {number} does not follow from the records before it (its `previous` differs)."
        )
    if record.epoch > state.epoch:
        return f"Record {number} was written by a later owner (epoch {record.epoch})."
    return ""


def _as_turn(record: Start | Turn | End) -> Turn:
    if isinstance(record, Turn):
        return record
    raise ValueError("the journal has a second record 0")


def _resume_asking(state: State, asking: Asking | None) -> State:
    """Count the request that an earlier owner was lost with.

    The count is written when the mark goes, in one write (`Summary.awaits`): an owner that is lost
    before has counted nothing, and the next one finds the mark.
    """
    if asking is None or asking.turn != len(state.turns) + 1:
        return state
    asking = replace(asking, lost=asking.lost + 1)
    state = replace(with_lost(state, asking.tokens), asking=asking, attempt=asking.attempt + 1)
    if asking.lost < MAX_OWNERS_LOST:
        return state
    message = (
        f"{asking.lost} operator processes were lost while turn {asking.turn} was asked for. See why "
        "they died (memory?) before you create the task again."
    )
    return replace(state, stop=fail(Reason.OWNERS_LOST, message))
