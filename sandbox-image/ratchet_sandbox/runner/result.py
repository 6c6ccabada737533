"""What a tool returns, and what it is given."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ratchet_sandbox.protocol import Meta, Outcome

if TYPE_CHECKING:
    from ratchet_sandbox.runner.config import Config
    from ratchet_sandbox.runner.guides import Guides
    from ratchet_sandbox.runner.processes import Children
    from ratchet_sandbox.runner.shell import Shell

Arguments = dict[str, Any]
"""Of the tool's shape (`arguments.check`); without defaults."""
SOFT_TIMEOUT_S: Final = 30.0
FILES_S: Final = 30.0
"""Longest time, in seconds, that a file tool works on one call."""
Watch = Callable[[], None]
"""Asked between two steps of long work. Raises Late."""


class Late(Exception):
    """The call was cancelled, or its time is over; the message says which."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A call's end as the tool tells it. `content` is for the model."""

    outcome: Outcome
    content: str
    meta: Meta = field(default_factory=Meta)


@dataclass(frozen=True, slots=True)
class Context:
    """What a tool may use while it works on one call."""

    config: "Config"
    children: "Children"
    shell: "Shell"
    key: str
    hard_timeout_s: float
    stop: "asyncio.Future[None]"
    """Done when the call is cancelled."""
    guides: "Guides"
    soft_timeout_s: float = SOFT_TIMEOUT_S
    """How long a command is waited for if the model does not say."""

    def watch(self) -> Watch:
        """From now on, a file tool's time."""
        limit_s = min(FILES_S, self.hard_timeout_s)
        end = time.monotonic() + limit_s

        def ask() -> None:
            if self.stop.done():
                raise Late("it was cancelled")
            if time.monotonic() > end:
                raise Late(f"it took over {limit_s:g} s; take a smaller part, or use bash")

        return ask

    @property
    def spill(self) -> Path:
        """Where this call's whole output goes if it has to be cut."""
        return self.config.spill / (self.key.replace("/", "-") + ".txt")


def failed(content: str) -> ToolResult:
    """The tool ran and says no."""
    return ToolResult(Outcome.FAILED, content)
