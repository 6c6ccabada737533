"""How answers of the model, and their absence, change what is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import assert_never

from ratchet.core import events as e
from ratchet.core.policy import after_failure, backoff
from ratchet.core.state import Answer, Backoff, State


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


def _replied(state: State, event: e.Replied) -> State:
    wanted = state.request
    if wanted is None or (wanted.turn, wanted.digest) != (event.turn, event.digest):
        return _withdrawn(state, e.AskWithdrawn(event.turn, event.reply.attempt))
    answer = Answer(event.turn, event.digest, event.reply)
    return replace(state, answer=answer, model_message="")


def _withdrawn(state: State, event: e.AskWithdrawn) -> State:
    """Its cost is lost, and its number is used up: each attempt has an id of its own."""
    state = replace(state, lost_requests=state.lost_requests + 1)
    wanted = state.request
    if wanted is None or (event.turn, event.attempt) != (wanted.turn, state.attempt):
        return state
    return replace(state, attempt=state.attempt + 1)


def _failed(state: State, event: e.AskFailed) -> State:
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
