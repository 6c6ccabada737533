"""How what is learned of a sandbox's network changes what is known."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from ratchet.core import events as e
from ratchet.core.evolve.sandbox import sandbox_changed
from ratchet.core.facts import Enforcement, NetworkVerdict
from ratchet.core.policy import MAX_NETWORK_TRIES, after_network, backoff
from ratchet.core.state import Backoff, SandboxPhase, State


def network_changed(state: State, event: e.NetworkLearned | e.NetworkUnlearned) -> State:
    """Of the sandbox that is there. What was learned of an earlier one is no news."""
    sandbox = state.sandbox
    if event.generation != sandbox.ref.generation or sandbox.phase is SandboxPhase.GONE:
        return state
    match event:
        case e.NetworkLearned(verdict=verdict):
            return _learned(state, verdict)
        case e.NetworkUnlearned():
            return _unlearned(state, event)
        case _:
            assert_never(event)


def _learned(state: State, verdict: NetworkVerdict) -> State:
    known = replace(state.sandbox, network=verdict, network_backoff=Backoff())
    stop = state.stop or after_network(state.config, verdict)
    return replace(state, sandbox=known, stop=stop)


def _unlearned(state: State, event: e.NetworkUnlearned) -> State:
    """It is asked again, but not for ever. Only a task that waits for it looks at its pod for that."""
    failures = state.sandbox.network_backoff.failures + 1
    if failures >= MAX_NETWORK_TRIES:
        return _learned(state, NetworkVerdict(Enforcement.UNKNOWN, event.message))
    pause = backoff(failures, 0.0, first=0.2, most=5.0)
    tried = Backoff(failures, event.at + pause)
    state = replace(state, sandbox=replace(state.sandbox, network_backoff=tried))
    if state.confined:
        return state
    return sandbox_changed(state, e.SandboxUnreachable(event.message, event.at))
