"""Two fakes and a router in front of them, for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.router.router import Router, installed, router_before, worker


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    if not installed():
        pytest.skip("sglang-router is not installed here: pip has no wheel for this platform")
    async with worker() as first, worker() as second, router_before(first, second) as up:
        yield up
