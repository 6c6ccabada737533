"""Small facts that travel between the loop and the outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ratchet.core.replies import Usage


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Which task. The uid tells it from an earlier one of the same name."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class EndpointRef:
    """Which ModelEndpoint. The namespace is never empty."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Ticket:
    """One wish to send a request to an endpoint."""

    endpoint: EndpointRef
    task: TaskRef
    priority: int
    """Higher first."""
    running: bool
    """Whether the task has recorded turns, so that the engine may still know its prompt."""
    created: datetime
    """When the task began: the older of two comes first."""
    tokens: int
    """An estimate of prompt and reply together."""
    patience_s: float | None = None
    """Goes elsewhere where the endpoint says that it is full for longer; None: waits however long."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How a request that was let in ended, where it brought a reply."""

    latency_s: float
    usage: Usage


@dataclass(frozen=True, slots=True)
class Away:
    """Why an endpoint lets nobody in, known without asking it, and until when."""

    message: str
    until: datetime
    full: bool = False
    """It works, and has said that it is full until then."""


@dataclass(frozen=True, slots=True)
class Asking:
    """The mark of a request under way, left in the task's status by whoever sends it.

    `lost` counts the owners that vanished while they asked for this turn.
    """

    turn: int
    attempt: int
    request_digest: str
    lost: int = 0
    tokens: int = 0
    """An estimate of what is lost with the request if its reply never comes."""


@dataclass(frozen=True, slots=True)
class SandboxRef:
    """Which sandbox of the task: its generation, and the id of its ledger once that is known."""

    generation: int = 1
    ledger: str = ""
    pod: str = ""


class Enforcement(StrEnum):
    """Whether a sandbox's network policy holds, as far as trying can tell."""

    ENFORCED = "Enforced"
    """Nothing that it denies could be reached."""
    OPEN = "Open"
    """Something that it denies could be reached."""
    UNKNOWN = "Unknown"
    """It could not be tried, or that told nothing."""


@dataclass(frozen=True, slots=True)
class NetworkVerdict:
    """What a sandbox found out about its network, and the sentence why."""

    enforcement: Enforcement
    message: str


@dataclass(frozen=True, slots=True)
class CallOrder:
    """A call as the sandbox gets it."""

    key: str
    tool: str
    arguments: str
    digest: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a ledger says of a key.

    `outcome` is one of the words of `records.Outcome`. `before` is the digest of
    the file that a `checked` tool was about to change, where that is known.
    """

    key: str
    outcome: str
    content: str = ""
    exit_code: int | None = None
    truncated: bool = False
    spill: str = ""
    duration_ms: int = 0
    not_utf8: bool = False
    before: str = ""
