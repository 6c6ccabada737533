"""How sandboxes that come and go change what is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.evolve.asking import finished, with_request
from ratchet.core.evolve.calls import advance, report_unknown, runs_from, unknown
from ratchet.core.evolve.journal import journal_ok
from ratchet.core.facts import Receipt, SandboxRef
from ratchet.core.policy import MAX_PATCH_TRIES, after_loss, after_unwritten, backoff
from ratchet.core.records import Call, Outcome, Turn
from ratchet.core.state import Backoff, Sandbox, SandboxPhase, State, in_sandbox, missing
from ratchet.core.tools import FINISH

_SandboxEvent = (
    e.SandboxAnswered
    | e.SandboxWaited
    | e.SandboxVanished
    | e.SandboxUnreachable
    | e.SandboxChanged
    | e.LedgerBound
    | e.GenerationRaised
)


def sandbox_changed(state: State, event: _SandboxEvent) -> State:
    sandbox = state.sandbox
    if sandbox.phase is SandboxPhase.GONE and not isinstance(
        event, e.LedgerBound | e.GenerationRaised
    ):
        return state  # what is gone does not come back: only a new generation changes that
    match event:
        case e.SandboxAnswered(ref):
            return _sandbox_answered(state, ref)
        case e.SandboxWaited(reason, message, at, hopeless):
            same = _same_wait(sandbox, reason, hopeless)
            waiting = replace(
                sandbox,
                phase=SandboxPhase.WAITING,
                since=sandbox.since if same and sandbox.since is not None else at,
                reason=reason,
                message=message,
                hopeless=hopeless,
                network=None,  # it may come back as another pod
            )
            return replace(state, sandbox=waiting)
        case e.SandboxVanished(generation, message, reason):
            if generation != sandbox.ref.generation:
                return state
            return _vanished(state, message, reason)
        case e.SandboxUnreachable(message, at, reason):
            failures = sandbox.backoff.failures + 1
            pause = backoff(failures, 0.0, first=0.2, most=5.0)
            away = replace(
                sandbox,
                phase=SandboxPhase.UNSEEN,
                since=None if sandbox.reason == Reason.NODE_LOST else sandbox.since,
                reason=reason,
                message=message,
                backoff=Backoff(failures, at + pause),
            )
            stop = state.stop or after_unwritten(reason, message, failures)
            return replace(state, sandbox=away, stop=stop)
        case e.SandboxChanged(came_up=True) if sandbox.phase is SandboxPhase.READY:
            return state
        case e.SandboxChanged():
            return replace(state, sandbox=replace(sandbox, phase=SandboxPhase.UNSEEN))
        case e.LedgerBound(ref):
            return journal_ok(replace(state, sandbox=replace(sandbox, ref=ref)))
        case e.GenerationRaised(ref):
            raised = replace(state, sandbox=Sandbox(ref, fenced=True, before=sandbox.message))
            return with_request(journal_ok(raised))
        case _:
            assert_never(event)


def _same_wait(sandbox: Sandbox, reason: Reason, hopeless: bool) -> bool:
    """Whether a wait goes on, or a new one begins: another one may take as long again.

    One for a node that does not answer is of its own kind, since it may take any time. A sandbox
    that was used has one measure, whether or not waiting alone can help.
    """
    used = bool(sandbox.ref.ledger)
    for_node = reason is Reason.NODE_LOST, sandbox.reason == Reason.NODE_LOST
    return for_node[0] == for_node[1] and (used or hopeless == sandbox.hopeless)


def patch_failed(state: State, message: str, at: datetime) -> State:
    """The sandbox is looked at and asked again; but the end of a task does not wait for ever."""
    failures = state.patch_failures + 1
    if failures >= MAX_PATCH_TRIES:
        return advance(replace(state, patch_tried=True, patch_message=message))
    state = replace(state, patch_failures=failures)
    return sandbox_changed(state, e.SandboxUnreachable(message, at))


def _sandbox_answered(state: State, ref: SandboxRef) -> State:
    sandbox = state.sandbox
    if ref.generation != sandbox.ref.generation:
        return state
    if sandbox.ref.ledger and ref.ledger != sandbox.ref.ledger:
        text = f"the ledger {sandbox.ref.ledger} is gone, another one is there"
        return _vanished(state, text, Reason.SANDBOX_FAILED)
    # An answer is no success yet: what was asked of it may fail again, and then waits longer.
    failed = Backoff(sandbox.backoff.failures)
    known = ref if not sandbox.ref.ledger else sandbox.ref
    ready = Sandbox(
        known,
        SandboxPhase.READY,
        fenced=True,
        backoff=failed,
        network=sandbox.network,
        network_backoff=sandbox.network_backoff,
    )
    if not sandbox.ref.ledger:
        # Not bound yet: decide() wishes for that, and only then sends calls.
        ready = replace(ready, ref=replace(sandbox.ref, pod=ref.pod), message=ref.ledger)
    return replace(state, sandbox=ready)


def _vanished(state: State, message: str, reason: Reason) -> State:
    """The generation is lost: every call that may have run there is settled before the next one."""
    bound = bool(state.sandbox.ref.ledger)
    gone = replace(
        state.sandbox,
        phase=SandboxPhase.GONE,
        fenced=True,
        reason=reason,
        message=message,
        backoff=Backoff(),
    )
    state = replace(state, sandbox=gone, look=None)
    if not finished(state):
        stop = state.stop or after_loss(state.config, state.sandbox.ref, message)
        state = replace(state, stop=stop)
    if finished(state) or [call.tool for call in missing(state)] == [FINISH.name]:
        # The work is lost with the workspace: the finish is taken, and has no result.
        return advance(replace(state, patch_tried=True, patch_message=message))
    turn = state.open_turn
    return state if turn is None or not bound else advance(_doubt(state, turn))


def _doubt(state: State, turn: Turn) -> State:
    """Say of each call that may have run in the lost sandbox what is to become of it."""
    calls = [
        call for call in missing(state) if in_sandbox(call) and _may_have_run(state, turn, call)
    ]
    if turn.epoch == state.epoch:
        calls = calls[:1]  # ours run one after another, so only the first can have been sent
    resolved = state
    for call in calls:
        resolved = unknown(resolved, turn, call, _lost(state, turn, call), workspace_kept=False)
    if resolved.reruns == state.reruns or resolved.known == state.known:
        return resolved
    # What is unknown must be recorded before a new sandbox is named, and results are recorded
    # together. So where one call cannot be repeated, none of them is.
    for call in calls:
        if call.index not in {rerun.index for rerun in state.reruns}:
            state = report_unknown(state, turn, call, _lost(state, turn, call))
    return state


def _may_have_run(state: State, turn: Turn, call: Call) -> bool:
    """Not if a re-run is recorded, or about to be, that only a later sandbox may run."""
    if call.index in {rerun.index for rerun in state.reruns}:
        return False
    return runs_from(turn, call) <= state.sandbox.ref.generation


def _lost(state: State, turn: Turn, call: Call) -> Receipt:
    return Receipt(turn.current_key(state.task_uid, call.index), Outcome.UNKNOWN)
