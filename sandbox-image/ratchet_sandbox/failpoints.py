"""Named points of server and runner at which a test can make the process fail. Off in every pod.

Only tests set the variable ``RATCHET_SANDBOX_FAILPOINT``, to one or more of ``<point>=<fault>``,
each with ``@<n>`` behind it where it is to strike at the n-th time that the point is reached (else
at the first), joined by commas: ``reserved=kill@2`` or ``answering=drop,result-stored=stop``. Each
strikes once. Before it does, ``failpoint <point> <fault>`` is written to standard error.

Without the variable, `reach` is one look at a module's variable. Standard library only: the runner
uses this too.
"""

import enum
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

VARIABLE: Final = "RATCHET_SANDBOX_FAILPOINT"


class Point(enum.StrEnum):
    """Where it can strike."""

    RESERVING = "reserving"
    """Server: the ledger knows nothing of the call yet."""
    RESERVED = "reserved"
    """Server: the call is reserved on disk, and not handed over."""
    HANDED_OVER = "handed-over"
    """Server: the call is on its way to the runner; who submitted it has no answer."""
    RESULT_RECEIVED = "result-received"
    """Server: the runner's result is here, and not on disk."""
    RESULT_STORED = "result-stored"
    """Server: the result is on disk, the runner has not been told so."""
    ANSWERING = "answering"
    """Server: what was asked about a call is known, and the answer is not sent."""
    EPOCH_RAISED = "epoch-raised"
    """Server: the epoch of a ``PUT /v1/epoch`` is on disk; who sent it has no answer."""
    CALL_RECEIVED = "call-received"
    """Runner: the call is here, and nothing of it is done."""
    EFFECT_DONE = "effect-done"
    """Runner: the tool has ended, its result is not kept."""
    RESULT_KEPT = "result-kept"
    """Runner: the result is kept, and not sent."""
    RESULT_SENT = "result-sent"
    """Runner: the result is sent, and not acknowledged."""


class Fault(enum.StrEnum):
    """What happens there."""

    KILL = "kill"
    """The process ends at once, as by SIGKILL."""
    STOP = "stop"
    """The process stands still until somebody sends SIGCONT."""
    DROP = "drop"
    """The connection of the request is cut without an answer; the process goes on."""


DROPPABLE: Final = frozenset(
    {Point.RESERVING, Point.HANDED_OVER, Point.ANSWERING, Point.EPOCH_RAISED}
)
"""Points that are reached while a request waits, and where leaving it unanswered breaks nothing else."""


class Dropped(Exception):
    """The request that reached the point is not to be answered; its connection is to be cut."""


@dataclass(slots=True)
class Strike:
    """A fault that waits at its point for the `left`-th time that it is reached; 0: it has struck."""

    point: Point
    fault: Fault
    left: int


@dataclass(slots=True)
class Armed:
    """The strikes of this process."""

    strikes: list[Strike] = field(default_factory=list)

    def reach(self, point: Point) -> None:
        waiting = [strike for strike in self.strikes if strike.point is point and strike.left > 0]
        for strike in waiting:
            strike.left -= 1
        for strike in waiting:
            if strike.left == 0:
                _strike(strike)


def parse(text: str) -> list[Strike]:
    """The strikes that a value of the variable means. Raises ValueError."""
    return [_parse_one(part.strip()) for part in text.split(",")]


def _parse_one(text: str) -> Strike:
    name, _, rest = text.partition("=")
    fault_name, _, count = rest.partition("@")
    try:
        point, fault, left = Point(name), Fault(fault_name), int(count or "1")
    except ValueError as error:
        raise ValueError(f"{VARIABLE}: {text!r} is not <point>=<fault>[@<n>]: {error}") from error
    if left < 1:
        raise ValueError(f"{VARIABLE}: {text!r} counts from 1")
    if fault is Fault.DROP and point not in DROPPABLE:
        names = ", ".join(sorted(DROPPABLE))
        raise ValueError(f"{VARIABLE}: no request can be dropped at {point}, only at {names}")
    return Strike(point, fault, left)


def _strike(strike: Strike) -> None:
    os.write(2, f"failpoint {strike.point} {strike.fault}\n".encode())
    match strike.fault:
        case Fault.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
            os._exit(137)  # the kernel spares PID 1 its own SIGKILL (pid_namespaces(7))
        case Fault.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case Fault.DROP:
            raise Dropped(strike.point)


def _from_environment(environment: Mapping[str, str]) -> Armed | None:
    text = environment.get(VARIABLE)
    return Armed(parse(text)) if text else None


_armed = _from_environment(os.environ)


def reach(point: Point) -> None:
    """Say that this point is reached. Raises `Dropped` where that was asked for, at `DROPPABLE`."""
    if _armed is not None:
        _armed.reach(point)
