"""Which part of the state each kind of event changes."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from ratchet.core import events as e
from ratchet.core.evolve.calls import call_changed
from ratchet.core.evolve.journal import (
    end_stored,
    journal_failed,
    journal_ok,
    rerun_stored,
    results_stored,
    turn_stored,
)
from ratchet.core.evolve.model import admission_changed, model_changed
from ratchet.core.evolve.network import network_changed
from ratchet.core.evolve.sandbox import patch_failed, sandbox_changed
from ratchet.core.state import State


def evolve(state: State, event: e.Event) -> State:
    """The state after the event."""
    match event:
        case e.Replied() | e.AskFailed() | e.AskWithdrawn():
            return model_changed(state, event)
        case e.Queued() | e.Admitted() | e.AdmissionLapsed() | e.EndpointAway():
            return admission_changed(state, event)
        case e.AskingMarked(asking):
            return journal_ok(replace(state, asking=asking))
        case e.TurnStored(turn):
            return turn_stored(journal_ok(state), turn)
        case e.RerunStored(turn):
            return rerun_stored(journal_ok(state), turn)
        case e.ResultsStored(turn):
            return results_stored(journal_ok(state), turn)
        case e.EndStored(end):
            return end_stored(journal_ok(state), end)
        case e.JournalFailed(at):
            return journal_failed(state, at)
        case e.JournalBroken(message):
            return replace(state, broken=state.broken or message)
        case e.CancelSeen() | e.PriorityChanged() | e.OwnerLost():
            return _seen_outside(state, event)
        case e.Concluded():
            return journal_ok(replace(state, concluded=True))
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
            return sandbox_changed(state, event)
        case e.PatchFailed() | e.NetworkLearned() | e.NetworkUnlearned():
            return _asked_of_sandbox(state, event)
        case e.CallEnded() | e.CallInterrupted() | e.FileChecked() | e.PatchTaken():
            return call_changed(state, event)
        case _:
            assert_never(event)


def _seen_outside(state: State, event: e.CancelSeen | e.PriorityChanged | e.OwnerLost) -> State:
    """What somebody else did to the task."""
    match event:
        case e.CancelSeen():
            return replace(state, cancelled=True)
        case e.PriorityChanged(priority):
            return replace(state, priority=priority)
        case e.OwnerLost():
            return replace(state, lost=True)
        case _:
            assert_never(event)


def _asked_of_sandbox(
    state: State, event: e.PatchFailed | e.NetworkLearned | e.NetworkUnlearned
) -> State:
    """What a sandbox says, or does not say, when it is asked for something else than a call."""
    if isinstance(event, e.PatchFailed):
        return patch_failed(state, event.message, event.at)
    return network_changed(state, event)
