"""A task in a pretended world: journal, model and sandbox in memory, time that jumps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.state import State
from ratchet.core.tools import enabled_tools
from ratchet.fakes.clock import LoopClock
from ratchet.fakes.journal import FakeJournals, FakeTask
from ratchet.fakes.model import FakeModel, Play
from ratchet.fakes.sandbox import FakeSandboxes
from ratchet.ports import TaskRef
from ratchet.shell.runner import Outside, Runner

CONFIG = Config(
    goal="Mend the sum.",
    model=ModelConfig(endpoint="default", url="http://model/v1", model="m"),
    sandbox=SandboxConfig(image="debian"),
    tools=enabled_tools((), ()),
)
TASK = TaskRef("work", "mend", "11111111-2222-3333-4444-555555555555")
