"""What to do next: facts in, wishes out.

`decide` is asked again after each event. It returns everything that should be
under way now, whether or not it has been started; whoever performs the wishes
starts the new ones and drops those that are wished for no longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from ratchet.core.commands import (
    Admit,
    Ask,
    AwaitSandbox,
    BindLedger,
    CheckFile,
    Command,
    Conclude,
    InterruptCall,
    LearnNetwork,
    MarkAsking,
    PrepareSandbox,
    RaiseGeneration,
    RemoveSandbox,
    RunCall,
    StoreEnd,
    StoreRerun,
    StoreResults,
    StoreTurn,
    TakePatch,
)
from ratchet.core.conditions import Reason
from ratchet.core.evolve import finish_arguments, finished
from ratchet.core.facts import Asking, CallOrder, SandboxRef
from ratchet.core.policy import (
    IMAGE_GRACE,
    START_GRACE,
    Stop,
    fail,
    limit_reached,
    unknown_stays,
)
from ratchet.core.records import Call, End, EndOutcome, Turn
from ratchet.core.sizes import cut
from ratchet.core.state import SandboxPhase, State, in_sandbox, missing

MAX_REASON = 16 * 1024
"""Bytes of the sentence that an End record gives as its reason."""

_NEEDS_JOURNAL = (
    Admit, MarkAsking, StoreTurn, StoreRerun, StoreResults, StoreEnd, BindLedger, RaiseGeneration, Conclude,
    PrepareSandbox, RemoveSandbox,
)  # fmt: skip
"""What can only fail while the API server is away. Nothing new is begun then."""


def decide(state: State, now: datetime) -> tuple[Command, ...]:
    """All that should be under way now."""
    wishes = tuple(_wishes(state, now))
    if not state.journal_backoff.blocks(now):
        return wishes
    return tuple(wish for wish in wishes if not isinstance(wish, _NEEDS_JOURNAL))


def _wishes(state: State, now: datetime) -> Iterator[Command]:
    if state.over:
        return
    if state.broken or state.end is not None:
        if state.concluded:
            yield RemoveSandbox()
        else:
            yield Conclude()
        return
    stop = _stop(state, now)
    if stop is not None:
        yield from _wind_up(state, stop, now)
        return
    yield from _keep_sandbox(state, now)
    if not state.sandbox.fenced:
        return
    yield from _run_calls(state)
    yield from _record(state)
    yield from _ask(state, now)


def _stop(state: State, now: datetime) -> Stop | None:
    """Why the task ends now, if it does. A finish that was taken wins over all that came later."""
    if finished(state):
        return _finish(state, now)
    if state.stop is not None:
        return state.stop
    if state.cancelled:
        message = "The task was cancelled by spec.cancel."
        return Stop(EndOutcome.CANCELLED, Reason.CANCELLED, message)
    if state.deadline is not None and now >= state.deadline:
        seconds = state.config.active_deadline_s
        return fail(
            Reason.DEADLINE_EXCEEDED,
            f"The task ran longer than its activeDeadlineSeconds ({seconds}). "
            "Create a new task with a longer one.",
        )
    if state.turns and (unknown := _recorded_unknown(state, state.turns[-1])) is not None:
        return unknown
    if not state.sandbox.fenced or state.answer is not None or state.open_turn is not None:
        return _sandbox_failed(state, now)
    return _sandbox_failed(state, now) or _limit_reached(state)


def _limit_reached(state: State) -> Stop | None:
    """Whether the next request may not be sent because of a limit of the task."""
    prompt = state.request.tokens if state.request is not None else 0
    return limit_reached(
        state.config, state.tally, state.model, lost=state.lost_tokens, prompt=prompt
    )


def _recorded_unknown(state: State, turn: Turn) -> Stop | None:
    """An owner before us recorded an outcome that ends the task, and was lost before the end."""
    return unknown_stays(state.config, turn, turn.results or ())


def _finish(state: State, now: datetime) -> Stop:
    """The end by `finish`: a success only if the work was saved."""
    turn = state.turns[-1]
    summary, result = finish_arguments(turn)
    lost = _patch_lost(state, now)
    if lost:
        return fail(
            Reason.RESULT_LOST,
            f"The model finished, but its result could not be taken out of the sandbox: {lost}",
        )
    message = "The model called finish."
    return Stop(EndOutcome.SUCCEEDED, Reason.FINISHED, message, summary, result)


def _patch_lost(state: State, now: datetime) -> str:
    """Why the work of a finished task cannot be had any more; empty as long as it may be."""
    if state.patch is not None:
        return ""
    if state.patch_tried:
        return state.patch_message or "it gave no patch"
    if state.sandbox.phase is SandboxPhase.GONE or _waited_out(state, now):
        return state.sandbox.message
    return ""


def _waited_out(state: State, now: datetime) -> bool:
    """Whether the sandbox had as long to come up as it may have."""
    ends = _grace_ends(state)
    return ends is not None and now >= ends


def _grace_ends(state: State) -> datetime | None:
    sandbox = state.sandbox
    waits = sandbox.phase in (SandboxPhase.WAITING, SandboxPhase.UNSEEN)  # or is looked at again
    if not waits or sandbox.since is None:
        return None
    # One that was used holds the work: it gets the time in which a person can repair something.
    quick = sandbox.hopeless and not sandbox.ref.ledger
    return sandbox.since + (IMAGE_GRACE if quick else START_GRACE)


def _sandbox_failed(state: State, now: datetime) -> Stop | None:
    sandbox = state.sandbox
    if not _waited_out(state, now):
        return None
    if not sandbox.ref.ledger:
        cloning = sandbox.reason == Reason.GIT_CLONE_FAILED
        reason = Reason.GIT_CLONE_FAILED if cloning else Reason.SANDBOX_FAILED
        return fail(reason, f"The sandbox did not start: {sandbox.message}")
    if sandbox.reason == Reason.NODE_LOST:
        return None  # its commands may still run there, so it is neither lost nor given up
    minutes = START_GRACE.total_seconds() / 60
    return fail(
        Reason.SANDBOX_FAILED,
        f"The sandbox did not come back within {minutes:g} minutes: {sandbox.message}",
    )


# --- the sandbox ---------------------------------------------------------------------------------


def _keep_sandbox(state: State, now: datetime) -> Iterator[Command]:
    sandbox = state.sandbox
    match sandbox.phase:
        case SandboxPhase.UNSEEN:
            if not sandbox.backoff.blocks(now):
                yield PrepareSandbox(sandbox.ref)
        case SandboxPhase.WAITING:
            yield AwaitSandbox(sandbox.ref)
        case SandboxPhase.READY:
            if not sandbox.ref.ledger:
                yield BindLedger(replace(sandbox.ref, ledger=sandbox.message))
            if sandbox.network is None and not sandbox.network_backoff.blocks(now):
                yield LearnNetwork(sandbox.ref.generation)
        case SandboxPhase.GONE:
            if _settled(state):
                yield RaiseGeneration(SandboxRef(sandbox.ref.generation + 1))


def _settled(state: State) -> bool:
    """Whether the journal says what became of every call that may have run in the lost sandbox."""
    if state.reruns or state.look is not None or state.answer is not None:
        return False
    return state.open_turn is None or bool(missing(state))


# --- the calls -----------------------------------------------------------------------------------


def _run_calls(state: State) -> Iterator[Command]:
    turn = state.open_turn
    if turn is None:
        return
    for rerun in state.reruns[:1]:
        yield StoreRerun(rerun, turn)
    rest = missing(state)
    if not rest or state.reruns or not state.sandbox.usable or not state.confined:
        return
    if state.look is not None:
        yield CheckFile(state.look.key, state.look.path, state.look.before)
    elif in_sandbox(rest[0]):
        yield RunCall(_order(state, turn, rest[0]))
    else:
        yield TakePatch()  # the only call of the operator's own that has to wait is finish


def _order(state: State, turn: Turn, call: Call) -> CallOrder:
    key = turn.current_key(state.task_uid, call.index)
    return CallOrder(key, call.tool, call.arguments, call.digest)


# --- the journal ---------------------------------------------------------------------------------


def _record(state: State) -> Iterator[Command]:
    turn = state.open_turn
    if turn is not None:
        if not missing(state):
            yield StoreResults(turn.number, turn, state.known)
        return
    if state.answer is not None:
        number = len(state.turns) + 1
        yield StoreTurn(
            number,
            Turn(
                number=number,
                epoch=state.epoch,
                generation=state.sandbox.ref.generation,
                ledger=state.sandbox.ref.ledger,
                previous=state.head,
                request_digest=state.answer.digest,
                reply=state.answer.reply,
            ),
        )


# --- the model -----------------------------------------------------------------------------------


def _ask(state: State, now: datetime) -> Iterator[Command]:
    wanted = state.request
    if wanted is None or state.answer is not None or state.route.blocks(now):
        return
    if state.sandbox.phase is SandboxPhase.GONE:
        return  # the model must be told of the new one, so the request is about to change
    if _limit_reached(state) is not None:
        return  # the open turn's results are still being recorded; then the task ends
    if not state.let_in:
        yield Admit(
            turn=wanted.turn,
            attempt=state.attempt,
            endpoint=state.route.index,
            priority=state.priority,
            tokens=wanted.tokens + wanted.reply_tokens,
            running=bool(state.turns),
        )
        return
    asking = _asking(state)
    if asking is not None and state.asking != asking:
        # First the mark: a request sent beside it would be one that nobody knows of, if we died
        # before it is written, or if the task is somebody else's by now.
        yield MarkAsking(asking)
        return
    yield Ask(wanted.turn, state.attempt, wanted.digest, wanted)


def _asking(state: State) -> Asking | None:
    if state.request is None:
        return None
    before = state.asking
    lost = before.lost if before is not None and before.turn == state.request.turn else 0
    request = state.request
    return Asking(request.turn, state.attempt, request.digest, lost, request.tokens)


# --- the end -------------------------------------------------------------------------------------


def _wind_up(state: State, stop: Stop, now: datetime) -> Iterator[Command]:
    """Settle the open turn, take the work along where that makes sense, close the journal."""
    turn = state.open_turn
    if turn is not None and state.reruns:
        yield StoreRerun(state.reruns[0], turn)  # it may be stored already, its answer lost
        return
    if turn is not None and missing(state):
        if _sandbox_is_new_to_us(state):
            yield PrepareSandbox(state.sandbox.ref)
            return
        yield from _interrupt(state, turn)
        return
    if turn is not None:
        yield StoreResults(turn.number, turn, state.known)
        return
    if _wants_patch(state, stop, now):
        yield from _fetch_patch(state, now)
        return
    number = len(state.turns) + 1
    end = End(
        number=number,
        epoch=state.epoch,
        previous=state.head,
        outcome=stop.outcome,
        reason=stop.reason,
        message=cut(stop.message, MAX_REASON),
        summary=stop.summary,
        result=stop.result,
        patch=state.patch,
    )
    yield StoreEnd(number, end)


def _sandbox_is_new_to_us(state: State) -> bool:
    """Whether it may still listen to an owner before us, and was not asked yet.

    Once: where it does not answer, the end is not held up.
    """
    sandbox = state.sandbox
    unseen = sandbox.phase is SandboxPhase.UNSEEN and not sandbox.backoff.failures
    return unseen and not sandbox.fenced


def _interrupt(state: State, turn: Turn) -> Iterator[Command]:
    sandbox = state.sandbox
    may_run = bool(sandbox.ref.ledger) and sandbox.phase is not SandboxPhase.GONE
    for call in missing(state)[:1]:
        yield InterruptCall(_order(state, turn, call), asked=may_run and in_sandbox(call))


def _wants_patch(state: State, stop: Stop, now: datetime) -> bool:
    """A cancelled task goes at once; every other end keeps what was done, if there is a sandbox."""
    if state.patch_tried or stop.outcome is EndOutcome.CANCELLED:
        return False
    if finished(state):
        return not _patch_lost(state, now)
    return state.sandbox.usable


def _fetch_patch(state: State, now: datetime) -> Iterator[Command]:
    if state.sandbox.usable:
        yield TakePatch()
    else:
        yield from _keep_sandbox(state, now)


# --- time ----------------------------------------------------------------------------------------


def wake(state: State, now: datetime) -> datetime | None:
    """The next moment at which `decide` may answer differently although nothing happened."""
    times = [
        state.deadline,
        state.route.until,
        state.journal_backoff.until,
        state.sandbox.backoff.until,
        state.sandbox.network_backoff.until,
        _grace_ends(state),
    ]
    return min((moment for moment in times if moment is not None and moment > now), default=None)
