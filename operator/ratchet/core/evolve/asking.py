"""The next request, rebuilt from what is known of the journal, and the end by `finish`."""

from __future__ import annotations

import json
from dataclasses import replace

from ratchet.core.keys import canonical
from ratchet.core.records import Outcome, Turn, with_results
from ratchet.core.state import State, missing
from ratchet.core.tools import FINISH
from ratchet.core.transcript import History, request_after, told


def with_request(state: State) -> State:
    """Rebuild the next request from what is known of the journal."""
    if state.stop is not None or state.end is not None or finished(state):
        return replace(state, request=None)
    state = _with_fallback(state)
    history = _history_as_known(state)
    if history is None:
        return replace(state, request=None)
    wanted = request_after(
        state.config, history, state.sandbox.ref.generation, state.model, state.squeeze
    )
    return state if wanted == state.request else replace(state, request=wanted)


def with_lost(state: State, tokens: int) -> State:
    """Count one more request as lost, with the tokens that it used or may have used."""
    return replace(
        state, lost_requests=state.lost_requests + 1, lost_tokens=state.lost_tokens + tokens
    )


def _with_fallback(state: State) -> State:
    """The conversation as the endpoint that is asked is shown it, folded anew if need be."""
    index = state.route.index
    if index == 0 or (state.fallback is not None and state.fallback[0] == index):
        return state
    complete = state.turns if state.open_turn is None else state.turns[:-1]
    return replace(state, fallback=(index, told(state.config, complete, state.model)))


def _history_as_known(state: State) -> History | None:
    """The history as it will be once the open turn's results are recorded; None if they are not known."""
    history = state.fallback[1] if state.fallback and state.route.index else state.history
    turn = state.open_turn
    if turn is None:
        return history
    if missing(state):
        return None
    return history.after(with_results(turn, state.known))


def finished(state: State) -> bool:
    """Whether the newest turn holds a `finish` that was taken."""
    if not state.turns:
        return False
    turn = state.turns[-1]
    results = turn.results if turn.results is not None else state.known
    ends = {call.index for call in turn.reply.calls if call.tool == FINISH.name}
    return any(r.index in ends and r.outcome is Outcome.OK for r in results)


def finish_arguments(turn: Turn) -> tuple[str, str]:
    """Summary and result (JSON text, or empty) of the `finish` of a turn."""
    for call in turn.reply.calls:
        if call.tool == FINISH.name:
            arguments = json.loads(call.arguments)
            result = arguments.get("result")
            # The spelling that the arguments' bound was checked in: another may be longer.
            text = canonical(result) if result is not None else ""
            return str(arguments.get("summary", "")), text
    return "", ""
