"""What can happen to a task. Facts only: each was true when it was noted, and stays so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ratchet.core.conditions import Reason
from ratchet.core.facts import Asking, NetworkVerdict, Receipt, SandboxRef
from ratchet.core.records import End, Patch, Reply, Turn
from ratchet.core.replies import ModelFailure


@dataclass(frozen=True, slots=True)
class Replied:
    """The model answered the request with this digest; nothing is recorded yet."""

    turn: int
    digest: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class AskFailed:
    """An attempt brought no reply. `jitter` is a random number in [0, 1) drawn for the backoff."""

    turn: int
    attempt: int
    failure: ModelFailure
    at: datetime
    jitter: float


@dataclass(frozen=True, slots=True)
class AskWithdrawn:
    """A request under way was given up, since it is wanted no longer; what it cost is lost."""

    turn: int
    attempt: int
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Queued:
    """A request waits for a place at its endpoint; `message` says which place and why."""

    turn: int
    attempt: int
    message: str
    place: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request has its place at the endpoint of this index."""

    turn: int
    attempt: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class AdmissionLapsed:
    """A request neither waits for its place any more nor has it, and was not sent."""

    turn: int
    attempt: int


@dataclass(frozen=True, slots=True)
class EndpointAway:
    """The endpoint of this index is known not to serve before `until`; nothing was sent there."""

    index: int
    message: str
    until: datetime
    at: datetime
    full: bool = False
    """It works, and has said that it is full until then."""


@dataclass(frozen=True, slots=True)
class PriorityChanged:
    """Somebody set spec.priority."""

    priority: int


@dataclass(frozen=True, slots=True)
class AskingMarked:
    """The status says that this request is under way."""

    asking: Asking


@dataclass(frozen=True, slots=True)
class TurnStored:
    """The journal holds this turn now: written by us, or found there and adopted."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class RerunStored:
    """The journal says that calls of this turn will be run again."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class ResultsStored:
    """The journal holds the results of this turn."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class EndStored:
    """The journal is closed."""

    end: End


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """The API server could not be reached; what was to be written is unknown until read."""

    at: datetime


@dataclass(frozen=True, slots=True)
class JournalBroken:
    """The journal holds what this task did not write, or the API server refuses a record."""

    message: str


@dataclass(frozen=True, slots=True)
class SandboxAnswered:
    """The sandbox is up, knows our epoch, and has this ledger."""

    sandbox: SandboxRef


@dataclass(frozen=True, slots=True)
class SandboxWaited:
    """The sandbox is not up yet. `hopeless` says that waiting alone will not help."""

    reason: Reason
    message: str
    at: datetime
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class SandboxVanished:
    """The sandbox of this generation is gone with its volumes, and its processes have ended."""

    generation: int
    message: str
    reason: Reason = Reason.SANDBOX_FAILED


@dataclass(frozen=True, slots=True)
class SandboxUnreachable:
    """The sandbox did not answer, and what it does is not known; or it can write nothing down."""

    message: str
    at: datetime
    reason: Reason = Reason.SANDBOX_UNREACHABLE


@dataclass(frozen=True, slots=True)
class SandboxChanged:
    """Something about the pod may be different: look again."""

    came_up: bool = False
    """All that is different is that it is ready now: no news where it has answered already."""


@dataclass(frozen=True, slots=True)
class NetworkLearned:
    """The sandbox of this generation has found out whether its network policy holds."""

    generation: int
    verdict: NetworkVerdict


@dataclass(frozen=True, slots=True)
class NetworkUnlearned:
    """The sandbox did not say what it found out about its network this time."""

    generation: int
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LedgerBound:
    """The status names the ledger of the current generation."""

    sandbox: SandboxRef


@dataclass(frozen=True, slots=True)
class GenerationRaised:
    """The status names a new sandbox as the current one; it may be made now."""

    sandbox: SandboxRef


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A ledger has the end of a call, or says that it cannot be known."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class CallInterrupted:
    """A call was ended from outside because the task stops; None: it had never begun."""

    key: str
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class FileChecked:
    """The file of a `checked` call of unknown outcome was looked at. `same`: unchanged since before."""

    key: str
    same: bool


@dataclass(frozen=True, slots=True)
class PatchTaken:
    """The work, as a patch; None where the sandbox could not give it any more."""

    patch: Patch | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class PatchFailed:
    """The sandbox did not give the patch this time."""

    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class CancelSeen:
    """Somebody set spec.cancel."""


@dataclass(frozen=True, slots=True)
class OwnerLost:
    """Another owner has the task, or it is gone. Nothing may be done any more."""


@dataclass(frozen=True, slots=True)
class Concluded:
    """The status shows how the task ended."""


@dataclass(frozen=True, slots=True)
class SandboxRemoved:
    """The deletion of all that belongs to the sandbox is accepted."""


Event = (
    Replied
    | AskFailed
    | AskWithdrawn
    | Queued
    | Admitted
    | AdmissionLapsed
    | EndpointAway
    | PriorityChanged
    | AskingMarked
    | TurnStored
    | RerunStored
    | ResultsStored
    | EndStored
    | JournalFailed
    | JournalBroken
    | SandboxAnswered
    | SandboxWaited
    | SandboxVanished
    | SandboxUnreachable
    | SandboxChanged
    | NetworkLearned
    | NetworkUnlearned
    | LedgerBound
    | GenerationRaised
    | CallEnded
    | CallInterrupted
    | FileChecked
    | PatchTaken
    | PatchFailed
    | CancelSeen
    | OwnerLost
    | Concluded
    | SandboxRemoved
)
