"""What it means for a command that the sandbox is away or says no. Pure."""

from __future__ import annotations

from datetime import datetime

from ratchet.core import commands as c
from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.facts import Enforcement, NetworkVerdict, Receipt
from ratchet.core.records import Outcome
from ratchet.core.state import State
from ratchet.ports import SandboxRefused

NEVER_RUN = frozenset({"bad_request", "bad_digest", "too_large"})
"""Codes by which a sandbox says that a call as it stands is not, and was never, run there."""


def sandbox_away(
    command: c.Command,
    message: str,
    now: datetime,
    reason: Reason = Reason.SANDBOX_UNREACHABLE,
) -> e.Event:
    """The sandbox did not do it this time."""
    if isinstance(command, c.TakePatch):
        return e.PatchFailed(message, now)
    if isinstance(command, c.LearnNetwork):
        return e.NetworkUnlearned(command.generation, message, now)
    return e.SandboxUnreachable(message, now, reason)


def sandbox_refused(
    command: c.Command, refusal: SandboxRefused, state: State, now: datetime
) -> e.Event:
    """The sandbox will not do it. What asking again cannot change is not asked again for ever."""
    text = str(refusal)
    match refusal.code, command:
        case "stale_epoch", _:
            return e.OwnerLost()
        case "wrong_ledger", _:
            return e.SandboxVanished(state.sandbox.ref.generation, text)
        case "conflict", _:
            return e.JournalBroken(text)
        case "too_large", c.TakePatch():
            return e.PatchTaken(None, text)
        case code, c.RunCall(order) if code in NEVER_RUN:
            return e.CallEnded(Receipt(order.key, Outcome.DENIED, f"[not run] {text}"))
        case _, c.LearnNetwork(generation):
            return e.NetworkLearned(generation, NetworkVerdict(Enforcement.UNKNOWN, text))
        case _, c.CheckFile(key):
            return e.CallEnded(Receipt(key, Outcome.UNKNOWN, text))
        case _:
            return sandbox_away(command, text, now)
