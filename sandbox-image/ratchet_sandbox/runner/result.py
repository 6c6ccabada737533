"""What a tool returns, and what it is given."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet_sandbox.protocol import Meta, Outcome

if TYPE_CHECKING:
    from ratchet_sandbox.runner.config import Config
    from ratchet_sandbox.runner.processes import Children
    from ratchet_sandbox.runner.shell import Shell

Arguments = dict[str, Any]
"""Validated by the operator; without defaults."""


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

    @property
    def spill(self) -> Path:
        """Where this call's whole output goes if it has to be cut."""
        return self.config.spill / (self.key.replace("/", "-") + ".txt")


def failed(content: str) -> ToolResult:
    """The tool ran and says no."""
    return ToolResult(Outcome.FAILED, content)
