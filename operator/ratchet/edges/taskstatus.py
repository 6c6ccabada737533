"""The status of an AgentTask as the operator writes it: fields, conditions, and JSON patches. Pure.

A write is a JSON patch of the fields that change, with tests for what must not have changed
meanwhile. So it disturbs nobody's edit of labels or spec, and a stale owner's write is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ratchet.api import names
from ratchet.core.conditions import TERMINAL_PHASES, ConditionType, Phase, Reason
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.status import Condition, ResultSummary, Summary
from ratchet.edges.wire import rfc3339
from ratchet.ports import TaskRef

Object = Mapping[str, Any]
Fields = dict[str, Any]
"""Fields of `.status` as they are to be; None for one that is to go."""
Patch = list[dict[str, Any]]

STATUS_MESSAGE = 1024
"""Characters of the status's message that the CRD takes."""
CONDITION_MESSAGE = 768
"""Characters of a condition's message that the CRD takes."""


# --- reading -------------------------------------------------------------------------------------


def status(task: Object) -> Object:
    """The status of a task, empty if there is none."""
    found: Object = task.get("status") or {}
    return found


def uid(task: Object) -> str:
    """The uid of an object."""
    return str((task.get("metadata") or {}).get("uid", ""))


def epoch(task: Object) -> int:
    """The epoch of the task's newest owner; 0 if it never had one."""
    return int((status(task).get("owner") or {}).get("epoch", 0))


def generation(task: Object) -> int:
    """Which version of its spec an object has."""
    return int((task.get("metadata") or {}).get("generation", 0))


def is_finished(task: Object) -> bool:
    """Whether the task's status says that it has ended."""
    return any(
        condition.get("type") == ConditionType.FINISHED and condition.get("status") == "True"
        for condition in status(task).get("conditions") or ()
    )


def asking_of(task: Object) -> Asking | None:
    """The request that the status says is under way."""
    found = status(task).get("asking")
    if not found:
        return None
    return Asking(
        turn=found["turn"],
        attempt=found["attempt"],
        request_digest=found["requestDigest"],
        lost=found.get("lost", 0),
        tokens=found.get("tokens", 0),
    )


def sandbox_of(task: Object) -> SandboxRef:
    """The task's current sandbox: the first one, with no ledger yet, if there never was one."""
    found = status(task).get("sandbox") or {}
    return SandboxRef(
        generation=found.get("generation") or 1,
        ledger=found.get("ledger", ""),
        pod=found.get("pod", ""),
    )


def time_of(task: Object, name: str) -> datetime | None:
    """A time in the status."""
    found = status(task).get(name)
    return datetime.fromisoformat(found) if found else None


# --- fields --------------------------------------------------------------------------------------


def asking_fields(asking: Asking | None, owner_epoch: int) -> Fields:
    """`asking`, or its absence."""
    if asking is None:
        return {"asking": None}
    body = {
        "turn": asking.turn,
        "attempt": asking.attempt,
        "requestDigest": asking.request_digest,
        "epoch": owner_epoch,
    }
    counts = {"lost": asking.lost, "tokens": asking.tokens}
    return {"asking": body | {name: count for name, count in counts.items() if count}}


def lost_of(task: Object) -> tuple[int, int]:
    """Lost requests of a task, and their tokens."""
    found = status(task)
    lost = found.get("lost") or {}
    requests: int = lost.get("requests") or found.get("lostRequests", 0)
    return requests, int(lost.get("tokens", 0))


def lost_fields(requests: int, tokens: int) -> Fields:
    """`lost`, and what was called `lostRequests` before it."""
    return {"lost": {"requests": requests, "tokens": tokens}, "lostRequests": requests}


def sandbox_fields(sandbox: SandboxRef) -> Fields:
    """`sandbox`."""
    named = {"ledger": sandbox.ledger, "pod": sandbox.pod}
    return {
        "sandbox": {"generation": sandbox.generation}
        | {name: value for name, value in named.items() if value}
    }


def summary_fields(task: TaskRef, current: Object, summary: Summary, now: datetime) -> Fields:
    """The ordinary status. `current` is the task as it is: its generation and condition times hold."""
    usage = summary.usage
    fields: Fields = outlook_fields(
        current, summary.phase, summary.reason, summary.message, summary.conditions, now
    )
    fields |= {
        "doing": summary.doing or None,
        "turns": summary.turns,
        "toolCalls": summary.tool_calls,
        "tokens": {
            "prompt": usage.prompt,
            "cached": usage.cached,
            "completion": usage.completion,
            "reasoning": usage.reasoning,
            "total": usage.total,
        },
        "cost": summary.cost or None,
        "unknownOutcomes": summary.unknown_outcomes,
        "result": _result(task, summary.result) if summary.result else None,
    }
    fields |= lost_fields(summary.lost_requests, summary.lost_tokens)
    asking = asking_of(current)
    if asking is not None and not summary.awaits(asking):
        fields["asking"] = None
    return fields


def outlook_fields(
    current: Object,
    phase: Phase,
    reason: Reason,
    message: str,
    conditions: Sequence[Condition],
    now: datetime,
) -> Fields:
    """Phase, reason, message and conditions, with the time of the end if it is one."""
    seen = generation(current)
    before = status(current)
    ended = phase in TERMINAL_PHASES
    written = before.get("conditions") or ()
    fields: Fields = {
        "observedGeneration": seen,
        "phase": phase.value,
        "reason": reason.value,
        "message": _short(message, STATUS_MESSAGE) or None,
        "conditions": _conditions(conditions, written, seen, now)
        + (_of_the_network(conditions, written) if ended else []),
    }
    if ended:
        fields["completionTime"] = before.get("completionTime") or rfc3339(now)
    return fields


_STATUS = {True: "True", False: "False", None: "Unknown"}


def _conditions(
    wanted: Sequence[Condition], before: Sequence[Object], generation: int, now: datetime
) -> list[dict[str, Any]]:
    times = {(c.get("type"), c.get("status")): c.get("lastTransitionTime") for c in before}
    return [
        {
            "type": condition.type.value,
            "status": _STATUS[condition.status],
            "observedGeneration": generation,
            "lastTransitionTime": times.get((condition.type, _STATUS[condition.status]))
            or rfc3339(now),
            "reason": condition.reason.value,
            "message": _short(condition.message, CONDITION_MESSAGE),
        }
        for condition in wanted
    ]


def _of_the_network(wanted: Sequence[Condition], before: Sequence[Object]) -> list[dict[str, Any]]:
    """What an earlier owner wrote of the sandbox's network: who only writes the end did not try it."""
    kind = ConditionType.NETWORK_ENFORCED
    if any(condition.type is kind for condition in wanted):
        return []
    return [dict(condition) for condition in before if condition.get("type") == kind]


def _result(task: TaskRef, result: ResultSummary) -> dict[str, Any]:
    body = {
        "summary": result.summary,
        "value": result.result,
        "baseCommit": result.base,
        "upstreamCommit": result.upstream,
        "patchBytes": result.patch_bytes,
        "patchSha256": result.patch_sha256,
        "workspaceClaim": names.workspace_claim_name(task.name, task.uid) if result.kept else "",
        "turn": names.turn_name(task.name, task.uid, result.record),
    }
    return {name: value for name, value in body.items() if value}


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 4] + " ..."


# --- patches -------------------------------------------------------------------------------------


def changes(current: Object, wanted: Fields) -> Patch:
    """The operations that make `.status` hold the wanted fields; empty if it does already."""
    before = status(current)
    patch: Patch = []
    if "status" not in current and any(value is not None for value in wanted.values()):
        patch.append({"op": "add", "path": "/status", "value": {}})
    for name, value in wanted.items():
        if value is None and name in before:
            patch.append({"op": "remove", "path": f"/status/{name}"})
        elif value is not None and before.get(name) != value:
            patch.append({"op": "add", "path": f"/status/{name}", "value": value})
    return patch


def is_ours(current: Object) -> Patch:
    """Tests that the task is still this one, of this owner, and that nothing was written since.

    Not uid and epoch alone: a write of ours that was given up as lost may still arrive, and would
    then take back what a later one says (a lost request that is counted, a mark that is gone).
    Where it was somebody's edit that came in between, the write is made again on what is read.
    """
    return [
        _test("/metadata/uid", uid(current)),
        _test("/status/owner/epoch", epoch(current)),
        *is_unchanged(current),
    ]


def is_unchanged(current: Object) -> Patch:
    """A test that nobody has written the object since it was read."""
    return [_test("/metadata/resourceVersion", current["metadata"]["resourceVersion"])]


def _test(path: str, value: Any) -> dict[str, Any]:
    return {"op": "test", "path": path, "value": value}
