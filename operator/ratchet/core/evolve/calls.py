"""How the ends of calls change what is known."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from ratchet.core import events as e
from ratchet.core import todo
from ratchet.core.evolve.asking import with_request
from ratchet.core.facts import Receipt
from ratchet.core.policy import (
    Look,
    resolve_look,
    resolve_unknown,
    unknown_result,
    unknown_stays,
)
from ratchet.core.records import Call, Outcome, Rerun, Result, Turn
from ratchet.core.state import Backoff, State, in_sandbox, missing
from ratchet.core.tools import FINISH, TODO

NOT_RUN = "[not run] An earlier call of this reply did not end well, so this one was not run."


NOT_REPEATED = (
    "[outcome unknown] This call may have happened, and was not repeated: an earlier call of this "
    "reply did not end well. Look before you go on."
)
FINISH_TOO_EARLY = "[not run] The sandbox was lost meanwhile, and with it what this reply built on."


FINISH_NOT_RUN = "[not run] finish is only taken when every other call of its reply succeeded."


def call_changed(
    state: State, event: e.CallEnded | e.CallInterrupted | e.FileChecked | e.PatchTaken
) -> State:
    turn = state.open_turn
    if state.sandbox.backoff.failures and not isinstance(event, e.CallInterrupted):
        state = replace(state, sandbox=replace(state.sandbox, backoff=Backoff()))
    match event:
        case e.PatchTaken(patch, message):
            state = replace(state, patch=patch, patch_tried=True, patch_message=message)
            return advance(state)
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
    if state.look is not None and state.look.key == receipt.key:
        state = replace(state, look=None)  # the file could not be looked at
    if _outcome(receipt) is Outcome.UNKNOWN:
        return advance(unknown(state, turn, call, receipt, workspace_kept=True))
    return advance(_know(state, _result(call, receipt)))


def _interrupted(state: State, turn: Turn, key: str, receipt: Receipt | None) -> State:
    call = _current(state, turn, key)
    if call is None or call.index in {rerun.index for rerun in state.reruns}:
        return state
    if receipt is None:
        receipt = Receipt(key, Outcome.CANCELLED, "[not run] The task was ended before this call.")
        if call.index in {rerun.index for rerun in turn.reruns}:
            text = "[outcome unknown] The task was ended before the call could be repeated."
            receipt = Receipt(key, Outcome.UNKNOWN, text)
    state = _know(replace(state, look=None), _result(call, receipt))
    if _outcome(receipt) is Outcome.UNKNOWN and turn.epoch != state.epoch:
        # Another owner may have gone on to the calls after it, and nobody is there to be asked.
        for later in filter(in_sandbox, missing(state)):
            doubt = Receipt(turn.current_key(state.task_uid, later.index), Outcome.UNKNOWN)
            state = report_unknown(state, turn, later, doubt)
    return advance(state)


def doubt_earlier_generations(state: State, turn: Turn) -> State:
    """Of another owner's turn, doubt the calls that may have run in a sandbox that is no more.

    What that owner knew of them went with it: only results in the journal count.
    """
    generation = state.sandbox.ref.generation
    for call in turn.reply.calls:
        if in_sandbox(call) and runs_from(turn, call) < generation:
            key = turn.current_key(state.task_uid, call.index)
            receipt = Receipt(key, Outcome.UNKNOWN)
            resolved = _resolve(state, turn, call, receipt, generation, workspace_kept=False)
            state = _settle(state, turn, call, resolved)
    return state


def runs_from(turn: Turn, call: Call) -> int:
    """The first generation in which the newest run of a call may have taken place."""
    generations = [rerun.generation for rerun in turn.reruns if rerun.index == call.index]
    return generations[-1] if generations else turn.generation


def _checked(state: State, turn: Turn, key: str, same: bool) -> State:
    call = _current(state, turn, key)
    if call is None or state.look is None or state.look.key != key:
        return state
    found = resolve_look(
        turn, call, state.look, same,
        task_uid=state.task_uid, generation=state.sandbox.ref.generation,
    )  # fmt: skip
    return advance(_settle(replace(state, look=None), turn, call, found))


def unknown(
    state: State, turn: Turn, call: Call, receipt: Receipt, *, workspace_kept: bool
) -> State:
    """A call of which nobody can say whether it happened: resolved by its effect class."""
    generation = state.sandbox.ref.generation + (0 if workspace_kept else 1)
    found = _resolve(state, turn, call, receipt, generation, workspace_kept=workspace_kept)
    return _settle(state, turn, call, found)


def report_unknown(state: State, turn: Turn, call: Call, receipt: Receipt) -> State:
    """A call of unknown outcome that is not repeated, whatever its class."""
    return _settle(state, turn, call, unknown_result(call, receipt))


def _resolve(
    state: State, turn: Turn, call: Call, receipt: Receipt, generation: int, *, workspace_kept: bool
) -> Result | Rerun | Look:
    return resolve_unknown(
        state.config, turn, call, receipt,
        task_uid=state.task_uid, next_generation=generation, workspace_kept=workspace_kept,
    )  # fmt: skip


def _settle(state: State, turn: Turn, call: Call, found: Result | Rerun | Look) -> State:
    match found:
        case Result(outcome=Outcome.UNKNOWN):
            stop = state.stop or unknown_stays(state.config, turn, (found,))
            return _know(replace(state, stop=stop), found)
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


def advance(state: State) -> State:
    """Settle what needs nobody else: calls after a bad end, `todo`, and `finish`."""
    turn = state.open_turn
    if turn is None:
        return state
    while rest := missing(state):
        call = rest[0]
        if call.index in {rerun.index for rerun in state.reruns}:
            break
        key = turn.current_key(state.task_uid, call.index)
        if not all(r.outcome.lets_others_run for r in state.known if _before(call, r)):
            state = _know(state, _left_out(turn, call, key))
        elif call.tool == TODO.name:
            state = _know(state, todo.run(call, key, _todos(state, turn)))
        elif call.tool == FINISH.name:
            settled = _finish(state, turn, call, key)
            if settled is None:
                break
            state = _know(state, settled)
        else:
            break
    return state if missing(state) else with_request(state)


def _before(call: Call, result: Result) -> bool:
    """Whether the call of a result comes before this one. `finish` comes last."""
    return result.index < call.index or call.tool == FINISH.name


def _left_out(turn: Turn, call: Call, key: str) -> Result:
    """A call that is not sent any more. One that was to be repeated may have happened before."""
    if any(rerun.index == call.index for rerun in turn.reruns):
        return Result(call.index, key, Outcome.UNKNOWN, NOT_REPEATED)
    return Result(call.index, key, Outcome.NOT_RUN, NOT_RUN)


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
