"""How answers of the model, and their absence, change what is known."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from ratchet.core import events as e
from ratchet.core import routing
from ratchet.core.evolve.asking import with_lost, with_request
from ratchet.core.policy import Stop
from ratchet.core.replies import FailureKind
from ratchet.core.routing import Route
from ratchet.core.state import Admission, Answer, Place, State

MAX_SQUEEZE = 2
"""Times that more is left out of a request that does not fit."""


def model_changed(state: State, event: e.Replied | e.AskFailed | e.AskWithdrawn) -> State:
    """An attempt has ended."""
    match event:
        case e.Replied():
            return _replied(state, event)
        case e.AskFailed():
            return _failed(state, event)
        case e.AskWithdrawn():
            return _withdrawn(state, event)
        case _:
            assert_never(event)


def admission_changed(
    state: State, event: e.Queued | e.Admitted | e.AdmissionLapsed | e.EndpointAway
) -> State:
    """An attempt waits for its place at an endpoint, has it, or has it no more."""
    match event:
        case e.Queued():
            here = _is_next(state, event.turn, event.attempt) and not state.let_in
            return replace(state, queue=Place(event.message, event.place)) if here else state
        case e.Admitted(turn, attempt, endpoint):
            here = _is_next(state, turn, attempt) and endpoint == state.route.index
            admission = Admission(turn, attempt, endpoint)
            return replace(state, admitted=admission, queue=None) if here else state
        case e.AdmissionLapsed(turn, attempt):
            return _lapsed(state) if _is_next(state, turn, attempt) else state
        case e.EndpointAway(index, message, until, at, full):
            if state.request is None or index != state.route.index:
                return state
            found = routing.away(state.config, state.route, message, until, at, full=full)
            return _routed(replace(state, queue=None), found)
        case _:
            assert_never(event)


def _is_next(state: State, turn: int, attempt: int) -> bool:
    wanted = state.request
    return wanted is not None and (wanted.turn, state.attempt) == (turn, attempt)


def _lapsed(state: State) -> State:
    """Not let in any more. An attempt whose mark was written gets another number, and so a new mark:
    that of one which nobody makes is taken out of the status."""
    mark = state.asking
    marked = mark is not None and _is_next(state, mark.turn, mark.attempt)
    return replace(state, admitted=None, queue=None, attempt=state.attempt + marked)


def _replied(state: State, event: e.Replied) -> State:
    wanted = state.request
    if wanted is None or (wanted.turn, wanted.digest) != (event.turn, event.digest):
        reply = event.reply
        return _withdrawn(state, e.AskWithdrawn(event.turn, reply.attempt, reply.usage.total))
    return replace(state, answer=Answer(event.turn, event.digest, event.reply))


def _withdrawn(state: State, event: e.AskWithdrawn) -> State:
    """Its cost is lost, and its number is used up: each attempt has an id of its own."""
    state = with_lost(state, event.tokens)
    if not _is_next(state, event.turn, event.attempt):
        return state
    return replace(state, attempt=state.attempt + 1)


def _failed(state: State, event: e.AskFailed) -> State:
    wanted, failure = state.request, event.failure
    if wanted is None or not _is_next(state, event.turn, event.attempt):
        return state
    if failure.kind is not FailureKind.WAIT:
        # A server that refused a request has not worked on it, one that broke may have.
        worked = failure.kind is FailureKind.RETRY and failure.reached
        state = with_lost(state, wanted.tokens if worked else 0)
    state = replace(state, attempt=state.attempt + 1)
    if failure.kind is FailureKind.CONTEXT:
        smaller = _squeezed(state)
        if smaller is not None:
            return smaller
    return _routed(
        state, routing.failed(state.config, state.route, failure, event.at, event.jitter)
    )


def _squeezed(state: State) -> State | None:
    """The state with a smaller request to the same endpoint; None if nothing more can be left out."""
    for squeeze in range(state.squeeze + 1, MAX_SQUEEZE + 1):
        tried = with_request(replace(state, squeeze=squeeze))
        if tried.request is not None and tried.request != state.request:
            return tried
    return None


def _routed(state: State, found: Route | Stop) -> State:
    """The state after a failure: another endpoint is another request."""
    if isinstance(found, Stop):
        return replace(state, stop=state.stop or found)
    moved = found.index != state.route.index
    state = replace(state, route=found)
    return with_request(replace(state, squeeze=0)) if moved else state
