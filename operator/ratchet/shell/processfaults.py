"""Faults at the failpoints of a real process, switched on by its environment. For tests only.

`RATCHET_FAILPOINT` is a list, separated by commas, of `<point>=<fault>[@<n>]`, with the names of
`ratchet.failpoints.points`: the fault strikes when the point is passed for the n-th time (default
1) in this process, whatever the task. For example `append-turn=kill-after@2,run=answer-lost`.

`RATCHET_FAILPOINT_SILENCE_S` says for how many seconds (default 5) nothing is heard where an
answer never comes, before the caller is told so.

Just before a fault strikes, `failpoint <point> <fault>` is written to standard error. A process
that stands still goes on when somebody sends it SIGCONT.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from ratchet.failpoints import Fault, Point
from ratchet.failpoints.steps import Away

T = TypeVar("T")

VARIABLE, SILENCE_VARIABLE = "RATCHET_FAILPOINT", "RATCHET_FAILPOINT_SILENCE_S"
SILENCE_S = 5.0
AGAIN_AFTER_S = 0.3
"""How long after its success a call that is delivered twice is delivered again."""

_STANDARD_ERROR = 2


class FailpointError(Exception):
    """A variable does not say which faults are meant. The text says what is wrong and what is right."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault at a point, when that is passed for the `nth` time."""

    point: Point
    fault: Fault
    nth: int = 1


@dataclass(slots=True)
class ProcessFaults:
    """Faults of this process (ratchet.failpoints.Faults)."""

    strikes: tuple[Strike, ...]
    silence_s: float = SILENCE_S
    _passed: Counter[Point] = field(default_factory=Counter)
    _late: set[asyncio.Task[None]] = field(default_factory=set)

    async def step(self, point: Point, call: Callable[[], Awaitable[T]], away: Away) -> T:
        """See ratchet.failpoints.Faults. What is to happen after success happens after that only."""
        self._passed[point] += 1
        match self._fault(point):
            case None:
                return await call()
            case Fault.KILL_BEFORE | Fault.STALL_BEFORE as fault:
                _signal(point, fault)
                return await call()
            case Fault.KILL_AFTER | Fault.STALL_AFTER as fault:
                result = await call()
                _signal(point, fault)
                return result
            case Fault.TWICE as fault:
                result = await call()
                _tell(point, fault)
                self._deliver_again(call)
                return result
            case fault:
                return await self._unheard(point, fault, call, away)

    def _fault(self, point: Point) -> Fault | None:
        passing = point, self._passed[point]
        found = (s.fault for s in self.strikes if (s.point, s.nth) == passing)
        return next(found, None)

    async def _unheard(
        self, point: Point, fault: Fault, call: Callable[[], Awaitable[T]], away: Away
    ) -> T:
        """The caller gets no answer, whether or not the call is done."""
        if fault is Fault.ANSWER_LOST:
            await call()
        _tell(point, fault)
        if fault is not Fault.ERROR:
            await asyncio.sleep(self.silence_s)
        raise away(f"failpoint {point}: {fault}")

    def _deliver_again(self, call: Callable[[], Awaitable[T]]) -> None:
        async def again() -> None:
            await asyncio.sleep(AGAIN_AFTER_S)
            # Nobody waits for this answer, so whatever it is, it changes nothing here.
            with suppress(Exception):
                await call()

        task = asyncio.create_task(again())
        self._late.add(task)
        task.add_done_callback(self._late.discard)


def read_faults(environ: Mapping[str, str] = os.environ) -> ProcessFaults | None:
    """The faults that are switched on; None where the variable is not set. Raises FailpointError."""
    text = environ.get(VARIABLE, "")
    if not text:
        return None
    strikes = tuple(_strike(part.strip()) for part in text.split(","))
    return ProcessFaults(strikes, _silence(environ.get(SILENCE_VARIABLE, "")))


def _strike(text: str) -> Strike:
    point, _, rest = text.partition("=")
    fault, at, nth = rest.partition("@")
    if point not in tuple(Point):
        raise _wrong(text, f"there is no point {point!r}; there are {', '.join(Point)}")
    if fault not in tuple(Fault):
        raise _wrong(text, f"there is no fault {fault!r}; there are {', '.join(Fault)}")
    if at and (not nth.isascii() or not nth.isdecimal() or int(nth) < 1):
        raise _wrong(text, f"{nth!r} is no passing; the first one is 1")
    return Strike(Point(point), Fault(fault), int(nth or 1))


def _wrong(text: str, why: str) -> FailpointError:
    return FailpointError(f"{VARIABLE} has {text!r}, not <point>=<fault>[@<n>]: {why}.")


def _silence(text: str) -> float:
    try:
        seconds = float(text or SILENCE_S)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise FailpointError(f"{SILENCE_VARIABLE} is {text!r}; it must be seconds, 0 or more.")
    return seconds


def _signal(point: Point, fault: Fault) -> None:
    _tell(point, fault)
    kills = fault in (Fault.KILL_BEFORE, Fault.KILL_AFTER)
    os.kill(os.getpid(), signal.SIGKILL if kills else signal.SIGSTOP)


def _tell(point: Point, fault: Fault) -> None:
    """In one write, past all buffers: the process may not live to empty them."""
    os.write(_STANDARD_ERROR, f"failpoint {point} {fault}\n".encode())
