"""The operator with sandboxes that are doubles, as a process: `python -m benchmarks.load.operator`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from ratchet.fakes.sandbox import FakeSandboxes
from ratchet.observe import log
from ratchet.shell.main import operate
from ratchet.shell.settings import read_settings
from ratchet.shell.supervisor import World


def without_pods(world: World) -> World:
    """The world with doubles for its sandboxes."""
    return replace(world, sandboxes=FakeSandboxes())


def main() -> int:
    """Run until SIGTERM."""
    settings = read_settings()
    log.set_up(settings.log_level)
    asyncio.run(operate(settings, around=without_pods))
    return 0


if __name__ == "__main__":
    sys.exit(main())
