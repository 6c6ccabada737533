"""The one function that production code calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from ratchet.failpoints.points import Point

T = TypeVar("T")

Away = Callable[[str], Exception]
"""Makes the exception with which the caller is told that no answer came."""


class Faults(Protocol):
    """What goes wrong, for those who have it switched on."""

    async def step(self, point: Point, call: Callable[[], Awaitable[T]], away: Away) -> T:
        """Do the call, or not, or twice, or never come back; as if it were the outside."""


_faults: ContextVar[Faults | None] = ContextVar("faults", default=None)


async def step(point: Point, call: Callable[[], Awaitable[T]], away: Away) -> T:
    """Do `call`, which is the step named `point`; `away` is raised where its answer is lost."""
    faults = _faults.get()
    return await (call() if faults is None else faults.step(point, call, away))


@contextmanager
def enable(faults: Faults | None) -> Iterator[None]:
    """Have these faults in this context, and in all asyncio tasks that are made in it."""
    token = _faults.set(faults)
    try:
        yield
    finally:
        _faults.reset(token)
