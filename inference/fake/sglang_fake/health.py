"""What /ready and /health say while the server warms up, drains, is paused or has lost its engine.

Recorded: /ready answers at once; /health takes 1 s, asks the engine for a token, and gives up
after 20 s with a 503; after that /ready says 503 too, until one /health has passed. A lost engine
shows in /health alone.
"""

from __future__ import annotations

import asyncio
import time

from sglang_fake.engine import Engine
from sglang_fake.settings import Settings


class Health:
    """The server's state, as its probes tell it."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._born = time.time()
        self._unhealthy = False
        self.draining = False

    @property
    def ready(self) -> bool:
        """What /ready says."""
        return self.up and not self._unhealthy and not self._engine.paused

    @property
    def up(self) -> bool:
        """Whether the server has warmed up and does not drain."""
        return not self.draining and time.time() >= self._born + self._settings.warmup_s

    async def check(self, generate: bool) -> bool:
        """What /health says, after the time that it takes."""
        if not self.up:
            return False
        if not generate:
            return True
        loop, settings = asyncio.get_running_loop(), self._settings
        until = loop.time() + settings.health_timeout_s
        while True:
            await asyncio.sleep(settings.health_delay_s)
            if not self._engine.stands_still:
                self._unhealthy = False
                return True
            if loop.time() >= until:
                self._unhealthy = True
                return False
