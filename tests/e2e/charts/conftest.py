"""A namespace that the test itself may delete."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from ratchet.edges.kube import ApiError, Kube


@pytest.fixture
async def namespace(api: Kube) -> AsyncIterator[str]:
    """A fresh namespace; its deletion begins when the test ends, if it did not before."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    try:
        await api.request("DELETE", f"/api/v1/namespaces/{name}")
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
