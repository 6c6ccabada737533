"""A command that the shell was given: its output so far, its input, and its end once there is one."""

import asyncio
import enum
import time
from dataclasses import dataclass, field
from typing import Final

from ratchet_sandbox.runner import family
from ratchet_sandbox.runner.output import Capture
from ratchet_sandbox.runner.terminal import Terminal

_QUIET_S: Final = 0.2
"""A command that has answered and then writes nothing for so long has probably said all."""


class End(enum.Enum):
    """How a command's run ended."""

    DONE = enum.auto()
    """It ended; the shell lives."""
    EXITED = enum.auto()
    """It ended and the shell with it, in an orderly way; its state is kept."""
    DIED = enum.auto()
    """The shell was killed, or replaced itself by another program."""
    TIMED_OUT = enum.auto()
    CANCELLED = enum.auto()
    KILLED = enum.auto()
    """By `bash_kill`, together with everything that the shell had started."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's end. `exit_code`: None if the shell was killed by us."""

    how: End
    exit_code: int | None
    duration_s: float
    notes: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Running:
    """A command that was begun. Whether it has ended is for `task` to say."""

    text: str
    capture: Capture
    limit_s: float
    """Hard timeout, from its beginning."""
    shell: int
    """Pid of the shell that runs it."""
    earlier: frozenset[family.Started]
    """What that shell had running when it began: background jobs of earlier commands."""
    terminal: Terminal
    stop: "asyncio.Future[End]"
    """Done when it is to be killed, with what its end is then called."""
    notes: tuple[str, ...] = ()
    """What is to be told about the shell it found."""
    signal: str = ""
    """Name of the signal that was sent to it last, by the tools."""
    began: float = field(default_factory=time.monotonic)
    task: "asyncio.Task[Ended] | None" = None

    @property
    def ended(self) -> Ended | None:
        """Its end, if it has ended. Raises what kept it from being run."""
        return self.task.result() if self.task is not None and self.task.done() else None

    @property
    def seconds(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self.began

    def end(self, how: End) -> None:
        """Have it killed, with everything that the shell has started."""
        if not self.stop.done():
            self.stop.set_result(how)

    async def wait(self, seconds: float | None, cancelled: "asyncio.Future[None]") -> Ended | None:
        """Wait for its end; None if it goes on. `cancelled` has it killed, and that is waited for."""
        assert self.task is not None
        await asyncio.wait(
            (self.task, cancelled), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if cancelled.done() and not self.task.done():
            self.end(End.CANCELLED)
            await asyncio.wait((self.task,))
        return self.ended

    async def answer(self, seconds: float, cancelled: "asyncio.Future[None]") -> Ended | None:
        """Wait, at most so long, until it has written something and is quiet, or has ended."""
        before = seen = self.capture.total
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            ended = await self.wait(_QUIET_S, cancelled)
            now = self.capture.total
            if ended or now == seen != before:
                return ended
            seen = now
        return self.ended
