"""The next request, rebuilt from what is known of the journal, and the end by `finish`."""

from __future__ import annotations

import json
from dataclasses import replace

from ratchet.core.keys import canonical
from ratchet.core.records import Outcome, Turn, with_results
from ratchet.core.state import State, missing
from ratchet.core.tools import FINISH
from ratchet.core.transcript import History, request_after


def with_request(state: State) -> State:
    """Rebuild the next request from what is known of the journal."""
    if state.stop is not None or state.end is not None or finished(state):
        return replace(state, request=None)
    history = _history_as_known(state)
    if history is None:
        return replace(state, request=None)
    wanted = request_after(state.config, history, state.sandbox.ref.generation)
    return state if wanted == state.request else replace(state, request=wanted)


def _history_as_known(state: State) -> History | None:
    """The history as it will be once the open turn's results are recorded; None if they are not known."""
    turn = state.open_turn
    if turn is None:
        return state.history
    if missing(state):
        return None
    return state.history.after(with_results(turn, state.known))


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
