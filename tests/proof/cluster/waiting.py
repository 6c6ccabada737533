"""Waiting for what no event tells: another look now and then, up to a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LOOK_S = 0.2
"""Between two looks."""


async def comes_true(
    holds: Callable[[], Awaitable[bool]], within_s: float, every_s: float = LOOK_S
) -> bool:
    """Wait until something holds; False if it does not in time."""
    try:
        async with asyncio.timeout(within_s):
            while not await holds():  # noqa: ASYNC110 - no event is set by a file or another process
                await asyncio.sleep(every_s)
    except TimeoutError:
        return False
    return True
