"""What a task shows of itself: a fold over the same state that the loop decides by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ratchet.core.conditions import TERMINAL_PHASES, ConditionType, Phase, Reason
from ratchet.core.config import VolumeClaim
from ratchet.core.cost import lost_cost, priced, spelled
from ratchet.core.facts import Asking, Enforcement
from ratchet.core.records import End, EndOutcome
from ratchet.core.replies import Usage
from ratchet.core.routing import told
from ratchet.core.state import Sandbox, SandboxPhase, State, missing

MAX_MESSAGE = 1024
"""Bytes of a condition's message and of the summary in the status; the journal has the whole."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition without its times, which the writer knows from what it wrote before."""

    type: ConditionType
    status: bool | None
    """None is Unknown."""
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """The result in short; the End record has it in full."""

    record: int
    summary: str
    result: str
    base: str = ""
    patch_bytes: int = 0
    patch_sha256: str = ""
    upstream: str = ""
    kept: bool = False
    """The workspace is on a claim, which stays as long as the task does."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything of the ordinary status that the loop computes. Equal summaries need no write."""

    phase: Phase
    doing: str
    reason: Reason
    message: str
    turns: int
    tool_calls: int
    usage: Usage
    lost_requests: int
    unknown_outcomes: int
    conditions: tuple[Condition, ...]
    result: ResultSummary | None = None
    attempt: int | None = 1
    """The attempt at the next turn that may be under way, None if none may."""
    lost_tokens: int = 0
    cost: str = ""
    """Of the recorded and the lost requests; empty where no endpoint has a price."""

    def awaits(self, asking: Asking) -> bool:
        """Whether the reply to this request may still be recorded, so that its mark stays.

        The mark of one that failed, or was left behind by an earlier owner, goes with the summary
        that counts it as lost: the next owner would else count it again.
        """
        if self.phase in TERMINAL_PHASES or self.attempt is None:
            return False
        return asking.turn > self.turns and asking.attempt >= self.attempt

    @property
    def urgent(self) -> tuple[Phase, tuple[tuple[ConditionType, bool | None, Reason], ...]]:
        """The part of which a change is written at once; the rest may wait a second.

        What was learned of the network is of the rest: where it matters the phase changes with it.
        """
        told = (c for c in self.conditions if c.type is not ConditionType.NETWORK_ENFORCED)
        return self.phase, tuple((c.type, c.status, c.reason) for c in told)


def summarise(state: State, now: datetime) -> Summary:
    """The status of a task at this moment."""
    phase, reason, message = _outlook(state, now)
    message, tally = _short(message), state.tally
    return Summary(
        phase=phase,
        doing=_doing(state),
        reason=reason,
        message=message,
        turns=tally.turns,
        tool_calls=tally.tool_calls,
        usage=tally.usage,
        lost_requests=state.lost_requests,
        unknown_outcomes=tally.unknown,
        conditions=_conditions(phase, reason, message) + _network(state.sandbox),
        attempt=None if _mark_is_stale(state) else state.attempt,
        lost_tokens=state.lost_tokens,
        cost=_cost(state),
        result=_result(state.end, state.config.sandbox.claim) if state.end is not None else None,
    )


def _mark_is_stale(state: State) -> bool:
    """Whether the status may hold the mark of an attempt that has ended, while no other is made."""
    mark = state.asking
    current = mark is not None and mark.turn == len(state.turns) + 1
    return current and state.answer is None and not state.let_in


def _cost(state: State) -> str:
    if not priced(state.config):
        return ""
    return spelled(state.tally.cost + lost_cost(state.config, state.lost_tokens))


def conditions_of_failure(reason: Reason, message: str) -> tuple[Condition, ...]:
    """The conditions of a task that failed before it could begin."""
    return _conditions(Phase.FAILED, reason, _short(message))


def conditions_of_wait(reason: Reason, message: str) -> tuple[Condition, ...]:
    """The conditions of a task that waits for something outside before it can begin."""
    return _conditions(Phase.WAITING, reason, _short(message))


def _outlook(state: State, now: datetime) -> tuple[Phase, Reason, str]:
    if state.broken:
        return Phase.FAILED, Reason.JOURNAL_CONFLICT, state.broken
    if state.end is not None:
        phases = {
            EndOutcome.SUCCEEDED: Phase.SUCCEEDED,
            EndOutcome.FAILED: Phase.FAILED,
            EndOutcome.CANCELLED: Phase.CANCELLED,
        }
        return phases[state.end.outcome], Reason(state.end.reason), state.end.message
    if state.queue is not None:
        return Phase.QUEUED, Reason.QUEUED, state.queue.message
    return Phase.RUNNING, *_progress(state, now)


def _progress(state: State, now: datetime) -> tuple[Reason, str]:
    sandbox = state.sandbox
    in_the_way = told(state.config, state.route)
    if in_the_way is not None and state.answer is None:
        return in_the_way
    # One that has answered since then has no reason: it is only looked at again.
    unanswered = sandbox.backoff.failures > 1 and sandbox.reason
    if sandbox.phase is SandboxPhase.UNSEEN and unanswered:
        return Reason(sandbox.reason), sandbox.message
    if sandbox.phase is SandboxPhase.GONE:
        return Reason(sandbox.reason), sandbox.message
    if sandbox.since is not None and sandbox.phase in (SandboxPhase.WAITING, SandboxPhase.UNSEEN):
        return Reason(sandbox.reason), _with_loss(sandbox)  # also while it is looked at again
    return Reason.ACCEPTED, "The task is under way."


def _with_loss(sandbox: Sandbox) -> str:
    if not sandbox.before:
        return sandbox.message
    return f"{sandbox.message} The sandbox before it was lost: {sandbox.before}"


def _doing(state: State) -> str:
    """One word for the DOING column; empty when the task has ended."""
    if state.end is not None or state.broken:
        return ""
    rest = missing(state)
    if rest:
        ready = state.sandbox.usable and state.confined
        return f"Tool:{rest[0].tool}" if ready else "Sandbox"
    return "Model"


def _conditions(phase: Phase, reason: Reason, message: str) -> tuple[Condition, ...]:
    """The status contract: what kubectl, kstatus and Argo CD read."""
    match phase:
        case Phase.SUCCEEDED:
            table = {
                ConditionType.READY: True,
                ConditionType.RECONCILING: False,
                ConditionType.COMPLETE: True,
                ConditionType.FINISHED: True,
            }
        case Phase.FAILED | Phase.CANCELLED:
            table = {
                ConditionType.READY: False,
                ConditionType.RECONCILING: False,
                ConditionType.STALLED: True,
                ConditionType.FAILED: True,
                ConditionType.FINISHED: True,
            }
        case _:
            table = {ConditionType.READY: False, ConditionType.RECONCILING: True}
    return tuple(Condition(kind, value, reason, message) for kind, value in table.items())


_ENFORCEMENT: Mapping[Enforcement, tuple[bool | None, Reason]] = {
    Enforcement.ENFORCED: (True, Reason.POLICY_ENFORCED),
    Enforcement.OPEN: (False, Reason.POLICY_IGNORED),
    Enforcement.UNKNOWN: (None, Reason.PROBE_INCONCLUSIVE),
}


def _network(sandbox: Sandbox) -> tuple[Condition, ...]:
    """What the sandbox found out about its network, once it has."""
    verdict = sandbox.network
    if verdict is None:
        return ()
    status, reason = _ENFORCEMENT[verdict.enforcement]
    message = _short(verdict.message)
    return (Condition(ConditionType.NETWORK_ENFORCED, status, reason, message),)


def _result(end: End, claim: VolumeClaim | None) -> ResultSummary | None:
    patch = end.patch
    if not end.summary and patch is None and claim is None:
        return None
    return ResultSummary(
        record=end.number,
        summary=_short(end.summary),
        result=end.result if len(end.result.encode()) <= 4096 else "",
        base=patch.base if patch else "",
        upstream=patch.upstream_commit if patch else "",
        patch_bytes=patch.size if patch else 0,
        patch_sha256=patch.sha256 if patch else "",
        kept=claim is not None,
    )


def _short(text: str) -> str:
    data = text.encode("utf-8")
    if len(data) <= MAX_MESSAGE:
        return text
    return data[: MAX_MESSAGE - 4].decode("utf-8", "ignore") + " ..."
