"""The outside world, as the runner sees it: some Protocols, each with a real and a fake home.

Rules that all homes keep (tests/contract holds them to it):

- A method that says it returns a failure never raises it. What raises is the
  error tree below, and anything else is a bug.
- Cancelling the asyncio task of a call is always safe: what the call was doing
  may or may not have happened, and asking again tells.

Error tree::

    PortError
     +-- JournalAway        the API server cannot be reached or answers 5xx; nothing is known; retry
     +-- OwnershipLost      the task is gone, is another one, or has a newer owner: stop at once
     +-- JournalRefused     the API server says no to what was written: a person must look
     +-- SandboxAway        the sandbox does not answer; look at the pod, then ask again
     +-- SandboxRefused     the sandbox says no (stale epoch, other ledger, conflict)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ratchet.core.conditions import Reason
from ratchet.core.config import Config, ModelConfig, Rule
from ratchet.core.facts import (
    Answered,
    Asking,
    Away,
    CallOrder,
    EndpointRef,
    NetworkVerdict,
    Receipt,
    SandboxRef,
    TaskRef,
    Ticket,
)
from ratchet.core.records import End, Patch, Record, Rerun, Result, Start, Turn
from ratchet.core.replies import ModelFailure, RawReply
from ratchet.core.status import Summary


class PortError(Exception):
    """Base of all that a port may raise. The text says what happened, where, what to do next."""


class JournalAway(PortError):
    """The API server did not answer, or answered that it cannot. What was written is not known."""


class OwnershipLost(PortError):
    """Somebody else owns the task now, or it no longer exists. The loop must stop at once."""


class JournalRefused(PortError):
    """The API server refused the object itself (too large, not permitted): retrying is no use."""


class SandboxAway(PortError):
    """No answer from the sandbox server. The pod may be starting, restarting or gone.

    Another `reason`: it answers, and says that it cannot write anything down. Nothing was begun.
    """

    def __init__(self, message: str, reason: Reason = Reason.SANDBOX_UNREACHABLE) -> None:
        super().__init__(message)
        self.reason = reason


class SandboxRefused(PortError):
    """The sandbox server said no. `code` is one of its error codes (stale_epoch, conflict, ...)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Claim:
    """A successful claim: everything about the task that is not in the journal."""

    task: TaskRef
    epoch: int
    started: datetime
    deadline: datetime | None
    cancel: bool
    asking: Asking | None
    """The mark of the last request of an owner before this one, recorded since or lost with it."""
    lost_requests: int
    """Those that the status counts; the one of `asking` is not among them."""
    sandbox: SandboxRef
    records: tuple[Record, ...]
    """The journal in order, record 0 first; as the API server returned it."""
    lost_tokens: int = 0


class Journal(Protocol):
    """The records of one task and the fenced facts in its status. One object per claimed task."""

    async def append(self, record: Turn | End) -> tuple[Turn | End, bool]:
        """Create a record under its deterministic name.

        Returns what is stored under that name and whether it is ours. Not ours
        means that somebody wrote it before; the caller checks and adopts it.
        """

    async def record_results(self, turn: Turn, results: tuple[Result, ...]) -> Turn:
        """Write the results of a turn once. Returns the turn as stored, also if it had results."""

    async def record_rerun(self, turn: Turn, rerun: Rerun) -> Turn:
        """Append a deliberate re-run to a turn that has no results yet."""

    async def mark_asking(self, asking: Asking, summary: Summary) -> None:
        """Say in the status that a request is being sent. Carries the summary along."""

    async def set_sandbox(self, sandbox: SandboxRef) -> None:
        """Make `sandbox` the task's current one in the status, by compare-and-set.

        Used for a new generation, and to bind the ledger of one before the first call goes there.
        """

    async def summarise(self, summary: Summary) -> None:
        """Write the ordinary status."""


class Journals(Protocol):
    """Where tasks are claimed."""

    async def claim(
        self, task: TaskRef, holder: str, now: datetime
    ) -> tuple[Claim, Journal] | None:
        """Become the owner: epoch + 1 by compare-and-set, record 0 if there is none.

        None if there is nothing to do: the task is gone, ended, or its uid differs.
        A task that cannot be resolved (unknown profile, ...) gets its conditions here and None.
        """


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One attempt at a model request.

    `body` is the JSON text whose digest is recorded. `rid`, routing key and cache salt are not part
    of it: the edge adds them where the engine knows them.
    """

    config: ModelConfig
    namespace: str
    body: str
    rid: str
    routing_key: str


class Model(Protocol):
    """A model endpoint."""

    async def ask(self, request: ModelRequest) -> RawReply | ModelFailure:
        """Send one request, once. Cancelling closes the connection and frees the engine."""


class RuleCheck(Protocol):
    """The rules of a task about tool calls."""

    async def __call__(
        self,
        rules: tuple[Rule, ...],
        tool: str,
        arguments: str,
        calls: Mapping[str, int],
        turn: int,
        /,
    ) -> str | None:
        """Why this call is denied, as the model is told it; None if it is allowed.

        `arguments` is canonical JSON text, `calls` how often the task called each tool before. What
        cannot be decided is denied. Never raises but when cancelled.
        """


class Permit(Protocol):
    """A place at an endpoint: one request may be sent there."""

    def done(self, how: Answered | ModelFailure | None) -> None:
        """Give the place back and say how the request ended; None: it was withdrawn, or never sent.

        A second call is ignored. Never raises.
        """


Told = Callable[[str, int], None]
"""Told why a ticket waits, in a sentence, and its place in the queue (from 1)."""


class Gate(Protocol):
    """Who may ask which endpoint when: one for the process, shared by all tasks."""

    async def enter(self, ticket: Ticket, told: Told) -> Permit | Away:
        """Wait for a place. At once where there is one, and then `told` is never called.

        Otherwise `told` is called once the wait has lasted a second, and again, at times, when its
        reason or the place has changed. Away, at once or later: the endpoint is known not to serve,
        or to be full for longer than the ticket's patience. Cancelling leaves the queue; a
        place that was given at that very moment is given back. Never raises but when cancelled.
        """


@dataclass(frozen=True, slots=True)
class SandboxReady:
    """The sandbox of this generation answers and knows our epoch; `sandbox` names its ledger."""

    sandbox: SandboxRef


@dataclass(frozen=True, slots=True)
class SandboxPending:
    """Not yet, and why. `hopeless`: waiting alone will not help, a person must act."""

    reason: Reason
    message: str
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class SandboxGone:
    """The pod of this generation and its volumes are no more, and its processes have ended."""

    message: str
    reason: Reason = Reason.SANDBOX_FAILED


class Sandbox(Protocol):
    """The sandbox of one task. Knows its epoch; every call names epoch and ledger."""

    async def prepare(
        self, config: Config, wanted: SandboxRef
    ) -> SandboxReady | SandboxPending | SandboxGone:
        """Look at the pod of this generation, and make it if it was never made.

        Returns at once with what is the case. With a known ledger id a missing pod is Gone: a second
        one is never made for a generation, but where the ledger is on a claim that is still there.
        Then it is made again, with the same ledger. Ready means that the epoch has been raised there.
        """

    async def changed(self, wanted: SandboxRef) -> None:
        """Wait until the pod may have changed (a watch event, or a short while)."""

    async def network(self) -> NetworkVerdict:
        """Whether the network policy of the sandbox that answered last holds, as it found out.

        Takes some seconds. What the sandbox cannot find out is Unknown, and no error.
        """

    async def run(self, order: CallOrder) -> Receipt:
        """Submit a call (or find it submitted) and wait for its end, however long that takes."""

    async def interrupt(self, order: CallOrder) -> Receipt | None:
        """End the command of this call and tell how it ended; None if it never began.

        Takes at most 5 s; an end that cannot be learned by then has the outcome Unknown.
        """

    async def digest(self, path: str) -> str:
        """`sha256:<hex>` of a file in the workspace, or an empty string if there is none."""

    async def patch(self) -> Patch:
        """The work so far as a patch against the base commit."""

    async def remove(self) -> None:
        """Delete the pods and secrets of all generations. Returns when the deletion is accepted."""


class Sandboxes(Protocol):
    """Where sandboxes of claimed tasks come from."""

    def of(self, task: TaskRef, epoch: int) -> Sandbox:
        """The sandbox side of one claim."""


class Clock(Protocol):
    """Time. Virtual in tests."""

    def now(self) -> datetime:
        """The current time, with zone."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


__all__ = [
    "Answered", "Asking", "Away", "CallOrder", "Claim", "Clock", "EndpointRef", "Gate", "Journal",
    "JournalAway", "JournalRefused", "Journals", "Model", "ModelRequest", "OwnershipLost", "Permit",
    "PortError", "Receipt", "RuleCheck", "Sandbox", "SandboxAway", "SandboxGone", "SandboxPending",
    "SandboxReady", "SandboxRef", "SandboxRefused", "Sandboxes", "Start", "TaskRef", "Ticket", "Told",
]  # fmt: skip
