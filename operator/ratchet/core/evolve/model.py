"""How answers of the model, and their absence, change what is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from ratchet.core import events as e
from ratchet.core.policy import after_failure, backoff
from ratchet.core.state import Answer, Backoff, State


def replied(state: State, event: e.Replied) -> State:
    wanted = state.request
    if wanted is None or (wanted.turn, wanted.digest) != (event.turn, event.digest):
        return replace(state, lost_requests=state.lost_requests + 1)
    answer = Answer(event.turn, event.digest, event.reply)
    return replace(state, answer=answer, model_message="")


def ask_failed(state: State, event: e.AskFailed) -> State:
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
