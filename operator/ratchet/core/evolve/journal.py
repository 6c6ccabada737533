"""How writes to the journal, and their absence, change what is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ratchet.core.evolve.asking import with_lost, with_request
from ratchet.core.evolve.calls import advance, doubt_earlier_generations
from ratchet.core.policy import after_reply, backoff
from ratchet.core.records import End, Turn, turn_hash
from ratchet.core.routing import FIRST
from ratchet.core.state import Backoff, State


def journal_ok(state: State) -> State:
    return replace(state, journal_backoff=Backoff()) if state.journal_backoff.failures else state


def journal_failed(state: State, at: datetime) -> State:
    if state.journal_backoff.blocks(at):
        return state  # several writes were under way: together they are one failure
    failures = state.journal_backoff.failures + 1
    pause = backoff(failures, 0.0, first=0.2, most=10.0)
    return replace(state, journal_backoff=Backoff(failures, at + pause))


def turn_stored(state: State, turn: Turn) -> State:
    """A turn is a link of the chain now. Told twice, the second time is no news."""
    if turn.number != len(state.turns) + 1 or state.end is not None:
        return state
    ours = turn.epoch == state.epoch
    state = replace(
        state if ours else _without_answer(state),
        earlier=state.tally,
        turns=(*state.turns, turn),
        answer=None,
        request=None,
        known=(),
        reruns=(),
        look=None,
        patch=None,
        patch_tried=False,
        patch_failures=0,
        attempt=1,
        route=FIRST,
        squeeze=0,
        admitted=None,
        queue=None,
    )
    if turn.complete:
        return _completed(state, turn)
    return advance(state if ours else doubt_earlier_generations(state, turn))


def end_stored(state: State, end: End) -> State:
    """The journal is closed."""
    return replace(_without_answer(state), end=end, request=None)


def _without_answer(state: State) -> State:
    """An answer that nobody will record is counted as lost."""
    if state.answer is None:
        return state
    return replace(with_lost(state, state.answer.reply.usage.total), answer=None)


def _completed(state: State, turn: Turn) -> State:
    """The newest turn is complete as stored: it is a link of the chain now."""
    other = state.fallback
    state = replace(
        state,
        head=turn_hash(turn),
        history=state.history.after(turn),
        fallback=(other[0], other[1].after(turn)) if other is not None else None,
        stop=state.stop or after_reply(state.config, state.turns),
    )
    return with_request(state)


def rerun_stored(state: State, turn: Turn) -> State:
    if state.open_turn is None or turn.number != state.open_turn.number:
        return state
    if turn.results is not None:
        return results_stored(state, turn)  # another owner was done with the turn
    stored = {rerun.key for rerun in turn.reruns}
    waiting = tuple(rerun for rerun in state.reruns if rerun.key not in stored)
    return replace(state, turns=(*state.turns[:-1], turn), reruns=waiting)


def results_stored(state: State, turn: Turn) -> State:
    if state.open_turn is None or turn.number != state.open_turn.number:
        return state
    state = replace(state, turns=(*state.turns[:-1], turn), known=(), reruns=(), look=None)
    state = _completed(state, turn)
    if state.answer is not None and (
        state.request is None or state.answer.digest != state.request.digest
    ):
        # The stored turn is not what the model was shown: its answer is to another question. The
        # next attempt gets another number, since its id is made of that.
        state = replace(_without_answer(state), attempt=state.attempt + 1)
    return state
