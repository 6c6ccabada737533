"""A namespace with sandboxes whose shells are of any image."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.e2e import box
from tests.e2e.box import Box, Boxes, open_boxes


@pytest.fixture
async def boxes(cluster: Cluster, namespace: str) -> AsyncIterator[Boxes]:
    """Where the sandboxes come from."""
    async with open_boxes(cluster, namespace) as home:
        yield home


async def start(boxes: Boxes, **sandbox: Any) -> Box:
    """A sandbox with these fields of its class that answers."""
    started = await boxes.make(box.config(**sandbox))
    await started.ready()
    return started
