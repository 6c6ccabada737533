"""What the loop wishes to have done.

A command is a value: wishing for the same one again is the same wish. The
runner starts what is newly wished for, and drops what is no longer wished for
if it is `interruptible`; a write that has begun is always seen to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ratchet.core.facts import Asking, CallOrder, SandboxRef
from ratchet.core.records import End, Rerun, Result, Turn
from ratchet.core.transcript import Request


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the request to the model. Ends in Replied or AskFailed."""

    interruptible: ClassVar[bool] = True
    turn: int
    attempt: int
    digest: str
    request: Request = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Admit:
    """Wait for a place at an endpoint. Ends in Admitted or EndpointAway, Queued before that.

    No mark is written while a task waits, so that an owner that is lost then has lost no request.
    """

    interruptible: ClassVar[bool] = True
    turn: int
    attempt: int
    endpoint: int
    """Index among the endpoints of the task."""
    priority: int
    tokens: int = field(compare=False)
    running: bool = field(compare=False)


@dataclass(frozen=True, slots=True)
class MarkAsking:
    """Write into the status that the request is being sent. Ends in AskingMarked."""

    interruptible: ClassVar[bool] = False
    asking: Asking


@dataclass(frozen=True, slots=True)
class StoreTurn:
    """Create the record of a reply. No call of it may run before this ends in TurnStored."""

    interruptible: ClassVar[bool] = False
    number: int
    turn: Turn = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoreRerun:
    """Record a deliberate re-run before it starts. Ends in RerunStored."""

    interruptible: ClassVar[bool] = False
    rerun: Rerun
    turn: Turn = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoreResults:
    """Record the results of a turn. Ends in ResultsStored."""

    interruptible: ClassVar[bool] = False
    number: int
    turn: Turn = field(compare=False, repr=False)
    results: tuple[Result, ...] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoreEnd:
    """Create the last record. Ends in EndStored, or in TurnStored if a reply came first."""

    interruptible: ClassVar[bool] = False
    number: int
    end: End = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PrepareSandbox:
    """Look for the sandbox, and make it if it was never made."""

    interruptible: ClassVar[bool] = True
    sandbox: SandboxRef


@dataclass(frozen=True, slots=True)
class AwaitSandbox:
    """Wait until the sandbox may have changed. Ends in SandboxChanged."""

    interruptible: ClassVar[bool] = True
    sandbox: SandboxRef


@dataclass(frozen=True, slots=True)
class LearnNetwork:
    """Have the sandbox of this generation find out whether its network policy holds.

    Ends in NetworkLearned or NetworkUnlearned.
    """

    interruptible: ClassVar[bool] = True
    generation: int


@dataclass(frozen=True, slots=True)
class BindLedger:
    """Write the ledger's id into the status, before the first call goes there."""

    interruptible: ClassVar[bool] = False
    sandbox: SandboxRef


@dataclass(frozen=True, slots=True)
class RaiseGeneration:
    """Name the next sandbox in the status; only once nothing of the old one is open."""

    interruptible: ClassVar[bool] = False
    sandbox: SandboxRef


@dataclass(frozen=True, slots=True)
class RunCall:
    """Have a call run, or find out how it ran. Ends in CallEnded."""

    interruptible: ClassVar[bool] = True
    order: CallOrder


@dataclass(frozen=True, slots=True)
class InterruptCall:
    """End a call because the task stops. Ends in CallInterrupted.

    `asked`: whether it can have reached a sandbox that still is; otherwise it never began.
    """

    interruptible: ClassVar[bool] = False
    order: CallOrder
    asked: bool


@dataclass(frozen=True, slots=True)
class CheckFile:
    """See whether the file of a `checked` call still is as it was. Ends in FileChecked."""

    interruptible: ClassVar[bool] = True
    key: str
    path: str
    before: str


@dataclass(frozen=True, slots=True)
class TakePatch:
    """Fetch the work as a patch. Ends in PatchTaken or PatchFailed."""

    interruptible: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Conclude:
    """Write the final status. Ends in Concluded."""

    interruptible: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Delete what belongs to the sandbox. Ends in SandboxRemoved."""

    interruptible: ClassVar[bool] = False


Command = (
    Ask
    | Admit
    | MarkAsking
    | StoreTurn
    | StoreRerun
    | StoreResults
    | StoreEnd
    | PrepareSandbox
    | AwaitSandbox
    | LearnNetwork
    | BindLedger
    | RaiseGeneration
    | RunCall
    | InterruptCall
    | CheckFile
    | TakePatch
    | Conclude
    | RemoveSandbox
)
