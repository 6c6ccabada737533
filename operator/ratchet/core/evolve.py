"""How a fact changes what is known: `evolve` is total, and knows no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from ratchet.core import events as e
from ratchet.core import todo
from ratchet.core.conditions import Reason
from ratchet.core.facts import Asking, Receipt, SandboxRef
from ratchet.core.policy import (
    MAX_GENERATIONS,
    MAX_OWNERS_LOST,
    Look,
    after_failure,
    after_reply,
    backoff,
    fail,
    resolve_look,
    resolve_unknown,
)
from ratchet.core.records import (
    Call,
    End,
    Outcome,
    Rerun,
    Result,
    Start,
    Turn,
    start_hash,
    turn_hash,
    with_results,
)
from ratchet.core.state import (
    Answer,
    Backoff,
    Sandbox,
    SandboxPhase,
    State,
    in_sandbox,
    missing,
)
from ratchet.core.tools import FINISH, TODO
from ratchet.core.transcript import request

NOT_RUN = "[not run] An earlier call of this reply did not end well, so this one was not run."
FINISH_TOO_EARLY = "[not run] The sandbox was lost meanwhile, and with it what this reply built on."
FINISH_NOT_RUN = "[not run] finish is only taken when every other call of its reply succeeded."


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
    )
    for record in records[1:]:
        fault = misfit(state, record)
        if fault:
            return evolve(state, e.JournalBroken(fault))
        event = e.EndStored(record) if isinstance(record, End) else e.TurnStored(_as_turn(record))
        state = evolve(state, event)
    state = replace(state, inherited=state.open_turn.number if state.open_turn else 0)
    return _with_request(_resume_asking(state, asking))


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
    """Count the request that an earlier owner left behind, and its loss."""
    if asking is None or asking.turn != len(state.turns) + 1:
        return state
    state = replace(state, asking=asking, attempt=asking.attempt + 1)
    if asking.lost < MAX_OWNERS_LOST:
        return state
    message = (
        f"{asking.lost} operator processes were lost while turn {asking.turn} was asked for. See why "
        "they died (memory?) before you create the task again."
    )
    return replace(state, stop=fail(Reason.OWNERS_LOST, message))


def evolve(state: State, event: e.Event) -> State:
    """The state after the event."""
    match event:
        case e.Replied():
            return _replied(state, event)
        case e.AskFailed():
            return _ask_failed(state, event)
        case e.AskingMarked(asking):
            return _journal_ok(replace(state, asking=asking))
        case e.TurnStored(turn):
            return _turn_stored(_journal_ok(state), turn)
        case e.RerunStored(turn):
            return _rerun_stored(_journal_ok(state), turn)
        case e.ResultsStored(turn):
            return _results_stored(_journal_ok(state), turn)
        case e.EndStored(end):
            return _journal_ok(replace(state, end=end, answer=None, request=None))
        case e.JournalFailed(at):
            return _journal_failed(state, at)
        case e.JournalBroken(message):
            return replace(state, broken=state.broken or message)
        case e.CancelSeen():
            return replace(state, cancelled=True)
        case e.OwnerLost():
            return replace(state, lost=True)
        case e.Concluded():
            return _journal_ok(replace(state, concluded=True))
        case e.SandboxRemoved():
            return replace(state, removed=True)
        case (
            e.SandboxAnswered()
            | e.SandboxWaited()
            | e.SandboxVanished()
            | e.SandboxUnreachable()
            | e.SandboxChanged()
            | e.LedgerBound()
            | e.GenerationRaised()
        ):
            return _sandbox(state, event)
        case e.CallEnded() | e.CallInterrupted() | e.FileChecked() | e.PatchTaken():
            return _call(state, event)
        case _:
            assert_never(event)


# --- the model -----------------------------------------------------------------------------------


def _replied(state: State, event: e.Replied) -> State:
    wanted = state.request
    if wanted is None or (wanted.turn, wanted.digest) != (event.turn, event.digest):
        return replace(state, lost_requests=state.lost_requests + 1)
    answer = Answer(event.turn, event.digest, event.reply)
    return replace(state, answer=answer, model_message="")


def _ask_failed(state: State, event: e.AskFailed) -> State:
    if state.request is None or (event.turn, event.attempt) != (state.request.turn, state.attempt):
        return state
    failure = event.failure
    waiting = failure.kind.value == "Wait"
    failures = state.failures + (0 if waiting else 1)
    waits = state.waits + (1 if waiting else 0)
    stop = after_failure(state.config, failure, failures)
    pause = backoff(waits if waiting else failures, event.jitter)
    if failure.retry_after_s is not None:
        pause = max(pause, timedelta(seconds=failure.retry_after_s))
    return replace(
        state,
        failures=failures,
        waits=waits,
        attempt=state.attempt + 1,
        model_backoff=Backoff(failures + waits, event.at + pause),
        model_message=failure.message,
        stop=state.stop or stop,
        lost_requests=state.lost_requests + (0 if waiting else 1),
    )


# --- the journal ---------------------------------------------------------------------------------


def _journal_ok(state: State) -> State:
    return replace(state, journal_backoff=Backoff()) if state.journal_backoff.failures else state


def _journal_failed(state: State, at: datetime) -> State:
    failures = state.journal_backoff.failures + 1
    pause = backoff(failures, 0.0, first=0.2, most=10.0)
    return replace(state, journal_backoff=Backoff(failures, at + pause))


def _turn_stored(state: State, turn: Turn) -> State:
    state = replace(
        state,
        turns=(*state.turns, turn),
        answer=None,
        request=None,
        known=(),
        reruns=(),
        look=None,
        patch=None,
        patch_tried=False,
        attempt=1,
        failures=0,
        waits=0,
        model_backoff=Backoff(),
        model_message="",
    )
    if turn.complete:
        return _completed(state, turn)
    return _advance(state)


def _completed(state: State, turn: Turn) -> State:
    """The newest turn is complete as stored: it is a link of the chain now."""
    state = replace(
        state, head=turn_hash(turn), stop=state.stop or after_reply(state.config, state.turns)
    )
    return _with_request(state)


def _rerun_stored(state: State, turn: Turn) -> State:
    if state.open_turn is None or turn.number != state.open_turn.number:
        return state
    stored = {rerun.key for rerun in turn.reruns}
    waiting = tuple(rerun for rerun in state.reruns if rerun.key not in stored)
    return replace(state, turns=(*state.turns[:-1], turn), reruns=waiting)


def _results_stored(state: State, turn: Turn) -> State:
    if state.open_turn is None or turn.number != state.open_turn.number:
        return state
    before = state.request
    state = replace(state, turns=(*state.turns[:-1], turn), known=(), reruns=(), look=None)
    state = _completed(state, turn)
    if state.answer is not None and (
        state.request is None or state.answer.digest != state.request.digest
    ):
        # The stored turn is not what the model was shown: its answer is to another question.
        state = replace(state, answer=None, lost_requests=state.lost_requests + 1)
    if before is not None and state.request != before:
        state = replace(state, attempt=state.attempt + 1)
    return state


def _with_request(state: State) -> State:
    """Rebuild the next request from what is known of the journal."""
    if state.stop is not None or state.end is not None or finished(state):
        return replace(state, request=None)
    turns = _turns_as_known(state)
    if turns is None:
        return replace(state, request=None)
    wanted = request(state.config, turns, state.sandbox.ref.generation)
    return state if wanted == state.request else replace(state, request=wanted)


def _turns_as_known(state: State) -> tuple[Turn, ...] | None:
    """The journal as it will be once the open turn's results are recorded; None if they are not known."""
    turn = state.open_turn
    if turn is None:
        return state.turns
    if missing(state):
        return None
    return (*state.turns[:-1], with_results(turn, state.known))


def finished(state: State) -> bool:
    """Whether the newest turn holds a `finish` that was taken."""
    if not state.turns:
        return False
    turn = state.turns[-1]
    results = turn.results if turn.results is not None else state.known
    ends = {call.index for call in turn.reply.calls if call.tool == FINISH.name}
    return any(r.index in ends and r.outcome is Outcome.OK for r in results)


# --- the sandbox ---------------------------------------------------------------------------------

_SandboxEvent = (
    e.SandboxAnswered
    | e.SandboxWaited
    | e.SandboxVanished
    | e.SandboxUnreachable
    | e.SandboxChanged
    | e.LedgerBound
    | e.GenerationRaised
)


def _sandbox(state: State, event: _SandboxEvent) -> State:
    sandbox = state.sandbox
    match event:
        case e.SandboxAnswered(ref):
            return _sandbox_answered(state, ref)
        case e.SandboxWaited(reason, message, at, hopeless):
            same = sandbox.phase is SandboxPhase.WAITING and sandbox.reason == reason
            waiting = replace(
                sandbox,
                phase=SandboxPhase.WAITING,
                since=sandbox.since if same and sandbox.since else at,
                reason=reason,
                message=message,
                hopeless=hopeless,
            )
            return replace(state, sandbox=waiting)
        case e.SandboxVanished(generation, message):
            if generation != sandbox.ref.generation or sandbox.phase is SandboxPhase.GONE:
                return state
            return _vanished(state, message)
        case e.SandboxUnreachable(message, at):
            failures = sandbox.backoff.failures + 1
            pause = backoff(failures, 0.0, first=0.2, most=5.0)
            away = replace(
                sandbox,
                phase=SandboxPhase.UNSEEN,
                message=message,
                backoff=Backoff(failures, at + pause),
            )
            return replace(state, sandbox=away)
        case e.SandboxChanged():
            if sandbox.phase in (SandboxPhase.GONE, SandboxPhase.UNSEEN):
                return state
            seen = replace(sandbox, phase=SandboxPhase.UNSEEN)
            return replace(state, sandbox=seen)
        case e.LedgerBound(ref):
            return _journal_ok(replace(state, sandbox=replace(sandbox, ref=ref)))
        case e.GenerationRaised(ref):
            raised = replace(state, sandbox=Sandbox(ref, fenced=True))
            return _with_request(_journal_ok(raised))
        case _:
            assert_never(event)


def _sandbox_answered(state: State, ref: SandboxRef) -> State:
    sandbox = state.sandbox
    if ref.generation != sandbox.ref.generation:
        return state
    if sandbox.ref.ledger and ref.ledger != sandbox.ref.ledger:
        return _vanished(state, f"the ledger {sandbox.ref.ledger} is gone, another one is there")
    ready = Sandbox(ref if not sandbox.ref.ledger else sandbox.ref, SandboxPhase.READY, fenced=True)
    if not sandbox.ref.ledger:
        # Not bound yet: decide() wishes for that, and only then sends calls.
        ready = replace(ready, ref=replace(sandbox.ref, pod=ref.pod), message=ref.ledger)
    return replace(state, sandbox=ready)


def _vanished(state: State, message: str) -> State:
    """The generation is lost: every call that may have run there is settled before the next one."""
    bound = bool(state.sandbox.ref.ledger)
    gone = replace(
        state.sandbox, phase=SandboxPhase.GONE, fenced=True, message=message, backoff=Backoff()
    )
    state = replace(state, sandbox=gone, look=None)
    if finished(state) or [call.tool for call in missing(state)] == [FINISH.name]:
        # The work is lost with the workspace: the finish is taken, and has no result.
        return _advance(replace(state, patch_tried=True, patch_message=message))
    if state.sandbox.ref.generation >= MAX_GENERATIONS:
        text = f"{MAX_GENERATIONS} sandboxes of this task were lost. The last time: {message}"
        state = replace(state, stop=state.stop or fail(Reason.SANDBOX_FAILED, text))
    turn = state.open_turn
    if turn is None or not bound:
        return state
    calls = [call for call in missing(state) if in_sandbox(call)]
    if turn.number != state.inherited:
        calls = calls[:1]  # ours run one after another, so only the first can have been sent
    for call in calls:
        if call.index not in {rerun.index for rerun in state.reruns}:
            receipt = Receipt(turn.current_key(state.task_uid, call.index), Outcome.UNKNOWN)
            state = _unknown(state, turn, call, receipt, workspace_kept=False)
    return _advance(state)


# --- calls ---------------------------------------------------------------------------------------


def _call(
    state: State, event: e.CallEnded | e.CallInterrupted | e.FileChecked | e.PatchTaken
) -> State:
    turn = state.open_turn
    match event:
        case e.PatchTaken(patch, message):
            state = replace(state, patch=patch, patch_tried=True, patch_message=message)
            return _advance(state)
        case _ if turn is None:
            return state
        case e.CallEnded(receipt):
            return _ended(state, turn, receipt)
        case e.CallInterrupted(key, receipt):
            return _interrupted(state, turn, key, receipt)
        case e.FileChecked(key, same):
            return _checked(state, turn, key, same)
        case _:
            assert_never(event)


def _current(state: State, turn: Turn, key: str) -> Call | None:
    """The call without a result that runs under this key now."""
    for call in missing(state):
        if turn.current_key(state.task_uid, call.index) == key:
            return call
    return None


def _ended(state: State, turn: Turn, receipt: Receipt) -> State:
    call = _current(state, turn, receipt.key)
    if call is None or call.index in {rerun.index for rerun in state.reruns}:
        return state
    if _outcome(receipt) is Outcome.UNKNOWN:
        return _advance(_unknown(state, turn, call, receipt, workspace_kept=True))
    return _advance(_know(state, _result(call, receipt)))


def _interrupted(state: State, turn: Turn, key: str, receipt: Receipt | None) -> State:
    call = _current(state, turn, key)
    if call is None:
        return state
    if receipt is None:
        receipt = Receipt(key, Outcome.CANCELLED, "[not run] The task was ended before this call.")
        if call.index in {rerun.index for rerun in (*turn.reruns, *state.reruns)}:
            text = "[outcome unknown] The task was ended before the call could be repeated."
            receipt = Receipt(key, Outcome.UNKNOWN, text)
    reruns = tuple(rerun for rerun in state.reruns if rerun.index != call.index)
    return _advance(_know(replace(state, reruns=reruns, look=None), _result(call, receipt)))


def _checked(state: State, turn: Turn, key: str, same: bool) -> State:
    call = _current(state, turn, key)
    if call is None or state.look is None or state.look.key != key:
        return state
    found = resolve_look(
        turn, call, state.look, same,
        task_uid=state.task_uid, generation=state.sandbox.ref.generation,
    )  # fmt: skip
    return _advance(_settle(replace(state, look=None), found))


def _unknown(
    state: State, turn: Turn, call: Call, receipt: Receipt, *, workspace_kept: bool
) -> State:
    generation = state.sandbox.ref.generation + (0 if workspace_kept else 1)
    found = resolve_unknown(
        state.config, turn, call, receipt,
        task_uid=state.task_uid, next_generation=generation, workspace_kept=workspace_kept,
    )  # fmt: skip
    fails = state.config.on_unknown.value == "Fail"
    if isinstance(found, Result) and fails and state.stop is None:
        message = (
            f"Whether call {call.index} of turn {turn.number} ({call.tool}) happened cannot be known, "
            "and onUnknownOutcome is Fail. Look at what it may have changed before you run the task again."
        )
        state = replace(state, stop=fail(Reason.UNKNOWN_OUTCOME, message))
    return _settle(state, found)


def _settle(state: State, found: Result | Rerun | Look) -> State:
    match found:
        case Result():
            return _know(state, found)
        case Rerun():
            return replace(state, reruns=(*state.reruns, found))
        case Look():
            return replace(state, look=found)
        case _:
            assert_never(found)


def _know(state: State, result: Result) -> State:
    return replace(state, known=(*state.known, result))


def _outcome(receipt: Receipt) -> Outcome:
    """The recorded word for a ledger's; one we do not know is honestly unknown."""
    try:
        return Outcome(receipt.outcome)
    except ValueError:
        return Outcome.UNKNOWN


def _result(call: Call, receipt: Receipt) -> Result:
    return Result(
        index=call.index,
        key=receipt.key,
        outcome=_outcome(receipt),
        content=receipt.content,
        exit_code=receipt.exit_code,
        truncated=receipt.truncated,
        spill=receipt.spill,
        duration_ms=receipt.duration_ms,
        not_utf8=receipt.not_utf8,
    )


def _advance(state: State) -> State:
    """Settle what needs nobody else: calls after a bad end, `todo`, and `finish`."""
    turn = state.open_turn
    if turn is None:
        return state
    while rest := missing(state):
        call = rest[0]
        if call.index in {rerun.index for rerun in state.reruns}:
            break
        key = turn.current_key(state.task_uid, call.index)
        if not all(result.outcome.lets_others_run for result in state.known):
            state = _know(state, Result(call.index, key, Outcome.NOT_RUN, NOT_RUN))
        elif call.tool == TODO.name:
            state = _know(state, todo.run(call, key, _todos(state, turn)))
        elif call.tool == FINISH.name:
            settled = _finish(state, turn, call, key)
            if settled is None:
                break
            state = _know(state, settled)
        else:
            break
    return state if missing(state) else _with_request(state)


def _finish(state: State, turn: Turn, call: Call, key: str) -> Result | None:
    """The result of `finish`; None while the patch has to be taken first."""
    if any(result.outcome is not Outcome.OK for result in state.known):
        return Result(call.index, key, Outcome.NOT_RUN, FINISH_NOT_RUN)
    if state.sandbox.ref.generation != turn.generation:
        return Result(call.index, key, Outcome.NOT_RUN, FINISH_TOO_EARLY)
    if not state.patch_tried:
        return None
    return Result(call.index, key, Outcome.OK, "The task ends here.")


def _todos(state: State, turn: Turn) -> list[todo.Todo]:
    calls = {call.index: call for call in turn.reply.calls}
    here = [(calls[r.index], r) for r in sorted(state.known, key=lambda r: r.index)]
    return todo.current(state.turns[:-1], here)


def finish_arguments(turn: Turn) -> tuple[str, str]:
    """Summary and result (JSON text, or empty) of the `finish` of a turn."""
    for call in turn.reply.calls:
        if call.tool == FINISH.name:
            arguments = json.loads(call.arguments)
            result = arguments.get("result")
            text = (
                json.dumps(result, ensure_ascii=False, sort_keys=True) if result is not None else ""
            )
            return str(arguments.get("summary", "")), text
    return "", ""
