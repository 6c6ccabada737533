"""Fixtures of the sandbox's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.sandbox.runners import Bench, open_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """The runner's tools in an empty workspace."""
    async with open_bench(tmp_path) as bench:
        yield bench
