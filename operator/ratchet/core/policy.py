"""The deterministic rules around the model: when to try again, when to stop, what unknown means."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from ratchet.core.conditions import Reason
from ratchet.core.config import Completion, Config, ModelConfig, OnLoss, UnknownPolicy
from ratchet.core.cost import lost_cost, prompt_cost, spelled
from ratchet.core.facts import Enforcement, NetworkVerdict, Receipt, SandboxRef
from ratchet.core.keys import call_key
from ratchet.core.records import Call, EndOutcome, Outcome, Rerun, Result, Turn, Verdict
from ratchet.core.tally import Tally
from ratchet.core.tools import CATALOGUE, Effect

MAX_OWNERS_LOST = 3
"""Owners lost while asking for one turn before the task ends: it may be what kills them."""
MAX_RERUNS = 3
"""Deliberate re-runs of one call before its outcome is reported as unknown."""
MAX_GENERATIONS = 5
"""Sandboxes of one task."""
MAX_PATCH_TRIES = 8
"""Tries to get the patch out of a sandbox that answers; with the pauses between, some 16 s."""
MAX_LEDGER_TRIES = 120
"""Requests in a row that a sandbox could not write down; with the pauses between, some 10 minutes."""
MAX_NETWORK_TRIES = 8
"""Tries to learn of a sandbox that answers whether its network policy holds; some 16 s."""
START_GRACE = timedelta(minutes=10)
"""How long a sandbox may take to start, and one that was used to come back."""
IMAGE_GRACE = timedelta(seconds=60)
"""How long the kubelet may try to pull an image that it could not pull at first."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a task ends, decided but not yet recorded."""

    outcome: EndOutcome
    reason: Reason
    message: str
    summary: str = ""
    result: str = ""


def fail(reason: Reason, message: str) -> Stop:
    return Stop(EndOutcome.FAILED, reason, message)


def backoff(failures: int, jitter: float, *, first: float = 1.0, most: float = 60.0) -> timedelta:
    """How long to wait after the n-th failure in a row: doubling, with up to half taken off."""
    seconds = min(most, first * 2.0 ** min(failures - 1, 16))
    return timedelta(seconds=seconds * (1 - jitter / 2))


def after_reply(config: Config, turns: tuple[Turn, ...]) -> Stop | None:
    """Whether the newest reply, one without calls to run, ends the task."""
    reply = turns[-1].reply
    if reply.verdict.runs:
        return None
    if reply.verdict is Verdict.REFUSED:
        return fail(Reason.MODEL_REFUSED, reply.note or "The model declined to answer.")
    if reply.verdict is Verdict.TEXT:
        return _after_text(config, turns)
    bad = 0
    for turn in reversed(turns):
        if turn.reply.verdict.runs or turn.reply.verdict is Verdict.TEXT:
            break
        bad += 1
    if bad <= config.model.repairs:
        return None
    return fail(
        Reason.REPAIRS_EXHAUSTED,
        f"{bad} replies in a row could not be used. The last one: {reply.note}",
    )


def _after_text(config: Config, turns: tuple[Turn, ...]) -> Stop | None:
    nudged = len(turns) > 1 and turns[-2].reply.verdict is Verdict.TEXT
    if not nudged:
        return None
    text = turns[-1].reply.text
    if config.completion is Completion.TEXT:
        message = (
            "The model answered with text, twice, and completion: Text takes that as the result."
        )
        return Stop(EndOutcome.SUCCEEDED, Reason.TEXT_ACCEPTED, message, summary=text)
    return fail(
        Reason.NOT_FINISHED,
        "The model answered with text alone, was told to call finish, and did so again. "
        "Its text is in the last turn.",
    )


def unknown_stays(config: Config, turn: Turn, results: Iterable[Result]) -> Stop | None:
    """`onUnknownOutcome: Fail` ends the task at the first outcome that stays unknown."""
    if config.on_unknown is not UnknownPolicy.FAIL:
        return None
    for result in results:
        if result.outcome is Outcome.UNKNOWN:
            return fail(
                Reason.UNKNOWN_OUTCOME,
                f"Whether call {result.index} of turn {turn.number} "
                f"({turn.reply.calls[result.index].tool}) happened cannot be known, and "
                "onUnknownOutcome is Fail. Look at what it may have changed before you run the task "
                "again.",
            )
    return None


def after_loss(config: Config, lost: SandboxRef, message: str) -> Stop | None:
    """What it means for the task that a sandbox is lost with its workspace.

    One whose ledger was never bound had run nothing: a new one is as good, whatever `onLoss` says.
    """
    if lost.generation >= MAX_GENERATIONS:
        text = f"{MAX_GENERATIONS} sandboxes of this task were lost. The last time: {message}"
        return fail(Reason.SANDBOX_FAILED, text)
    if config.sandbox.on_loss is OnLoss.FAIL and lost.ledger:
        return fail(
            Reason.SANDBOX_LOST,
            f"The sandbox was lost with its workspace, and workspace.onLoss is Fail: {message}",
        )
    return None


def after_network(config: Config, verdict: NetworkVerdict) -> Stop | None:
    """What it means for the task whether its sandbox's network policy holds."""
    if not config.sandbox.require_enforced_network:
        return None
    if verdict.enforcement is Enforcement.ENFORCED:
        return None
    return fail(
        Reason.NETWORK_NOT_ENFORCED,
        "The SandboxClass has requireEnforcedNetwork, and that the sandbox's network policy holds "
        f"is not what was found: {verdict.message}",
    )


def after_unwritten(reason: Reason, message: str, failures: int) -> Stop | None:
    """What it means for the task that its sandbox could write nothing down, so often in a row."""
    if reason is Reason.SANDBOX_UNREACHABLE or failures < MAX_LEDGER_TRIES:
        return None
    return fail(
        reason, f"The sandbox could write nothing down, {failures} times in a row: {message}"
    )


def limit_reached(
    config: Config, tally: Tally, model: ModelConfig, *, lost: int = 0, prompt: int = 0
) -> Stop | None:
    """Whether the next request may not be sent, because it would pass a limit of the task.

    `lost` are the tokens of lost requests, `prompt` an estimate of those that the next one sends to
    `model`. What its reply will take nobody knows: a limit may be passed by one reply.
    """
    limits = config.limits
    if tally.turns >= limits.turns:
        return fail(
            Reason.TURN_LIMIT,
            f"The task used its {limits.turns} turns. Create a new task with a higher limits.turns.",
        )
    tokens = tally.usage.total + lost
    if limits.tokens is not None and tokens + max(prompt, 1) > limits.tokens:
        return fail(
            Reason.TOKEN_LIMIT,
            f"The task used {tokens} tokens, the next request takes about {prompt} more, and "
            f"limits.tokens is {limits.tokens}. Create a new task with a higher limit.",
        )
    return _cost_limit_reached(config, tally, model, lost, prompt) if limits.cost else None


def _cost_limit_reached(
    config: Config, tally: Tally, model: ModelConfig, lost: int, prompt: int
) -> Stop | None:
    spent, most = tally.cost + lost_cost(config, lost), Decimal(config.limits.cost)
    wanted = prompt_cost(model, prompt)
    if spent < most and spent + wanted <= most:
        return None
    return fail(
        Reason.COST_LIMIT,
        f"The task cost {spelled(spent)}, the next request costs about {spelled(wanted)} more, and "
        f"limits.cost is {config.limits.cost}. Create a new task with a higher limit.",
    )


@dataclass(frozen=True, slots=True)
class Look:
    """The outcome of a `checked` call is unknown and can be seen: look at the file first."""

    key: str
    path: str
    before: str


def resolve_unknown(
    config: Config,
    turn: Turn,
    call: Call,
    receipt: Receipt,
    *,
    task_uid: str,
    next_generation: int,
    workspace_kept: bool,
) -> Result | Rerun | Look:
    """What to do about a call of which nobody can say whether it happened.

    By effect class, and never by guessing. Where the workspace is gone, a
    `checked` call cannot be checked any more, and is treated like `once`.
    """
    effect = CATALOGUE[call.tool].effect
    rerun = _rerun(turn, call, task_uid, next_generation)
    if rerun is not None and effect in (Effect.PURE, Effect.IDEMPOTENT):
        return rerun
    if effect is Effect.CHECKED and workspace_kept and receipt.before:
        path = str(json.loads(call.arguments).get("path", ""))
        return Look(receipt.key, path, receipt.before)
    if rerun is not None and config.on_unknown is UnknownPolicy.RETRY:
        return rerun
    return unknown_result(call, receipt)


def resolve_look(
    turn: Turn, call: Call, look: Look, same: bool, *, task_uid: str, generation: int
) -> Result | Rerun:
    """What the file says about a `checked` call: unchanged means it did not happen."""
    if not same:
        text = (
            "The answer of this call was lost. The file has changed since it was read for the call, "
            "so the change was applied. Read the file before you change it again."
        )
        return Result(call.index, look.key, Outcome.OK, text)
    rerun = _rerun(turn, call, task_uid, generation)
    if rerun is not None:
        return rerun
    text = "The call was lost several times; the file is unchanged."
    return Result(call.index, look.key, Outcome.FAILED, text)


def _rerun(turn: Turn, call: Call, task_uid: str, generation: int) -> Rerun | None:
    done = sum(1 for rerun in turn.reruns if rerun.index == call.index)
    if done >= MAX_RERUNS:
        return None
    key = call_key(task_uid, turn.number, call.index, done + 1)
    return Rerun(call.index, key, "the outcome of the run before is unknown", generation)


def unknown_result(call: Call, receipt: Receipt) -> Result:
    """What is recorded, and the model told, of a call of unknown outcome."""
    text = (
        "[outcome unknown] The sandbox was lost while this call may have been running. It may have "
        "happened in full, in part, or not at all. It was not repeated. Look before you go on."
    )
    content = f"{text}\n{receipt.content}" if receipt.content else text
    return Result(call.index, receipt.key, Outcome.UNKNOWN, content)
