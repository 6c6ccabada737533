"""The gate as the operator opens it: a real server is asked over HTTP, and the status is written."""

from __future__ import annotations

import asyncio

from ratchet.edges.access import Access
from ratchet.ports import Away
from ratchet.shell.clock import SystemClock
from ratchet.shell.endpoints import open_gate
from sglang_fake.server import FakeSGLang
from sglang_fake.settings import Settings

from tests.unit.gate.test_endpoints import Cluster, Lease, body
from tests.unit.gate.test_probing import MODEL, NOTHING, Reader
from tests.unit.gate.tickets import ticket


async def test_the_gate_lets_in_and_the_status_says_that_the_server_serves() -> None:
    async with FakeSGLang(NOTHING, Settings(model=MODEL)) as server:
        cluster = Cluster(body(url=server.base_url, model=MODEL))
        opened = open_gate(cluster, Access(Reader()), SystemClock(), Lease())
        async with opened as (gate, endpoints):
            assert cluster.stored is not None
            endpoints.seen("ADDED", cluster.stored)
            permit = await gate.enter(ticket(1), lambda _sentence, _place: None)
            assert not isinstance(permit, Away)
            async with asyncio.timeout(20):
                while not cluster.writes:  # noqa: ASYNC110 - the fake API server sets no event
                    await asyncio.sleep(0.02)
            assert cluster.condition("Ready") == ("True", "Serving")
            permit.done(None)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probe")]
