"""What a process says of itself: it leads, it stands by, or it can do neither."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from ratchet.edges.kube import JSON, TIMEOUT_S, ApiError, ApiUnreachable, Params
from ratchet.edges.lease import DURATION_S, RENEW_DEADLINE_S, LeaseLock
from ratchet.fakes.clock import run
from ratchet.shell.leadership import Leadership
from ratchet.shell.probes import Readiness, serve_probes


class OneLease:
    """An API server with one Lease."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0
        self.away = False

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        if self.away:
            await asyncio.sleep(timeout_s)
            raise ApiUnreachable("the API server is away")
        if method == "GET":
            if self.stored is None:
                raise ApiError(404, "NotFound", "no such lease")
            return self.stored
        if method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", "it has changed")
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        self.stored = {**body, "metadata": metadata}
        return self.stored

    def leadership(self, holder: str) -> Leadership:
        loop = asyncio.get_running_loop()
        return Leadership(LeaseLock(self, "space", "operator", holder, loop.time))


def test_one_leads_and_the_other_stands_by_until_it_follows() -> None:
    async def story() -> None:
        api = OneLease()
        first, second = api.leadership("first"), api.leadership("second")
        assert first.problem
        changes: list[bool] = []
        leading = asyncio.create_task(first.run(lambda: changes.append(first.held)))
        await asyncio.sleep(0.1)
        standby = asyncio.create_task(second.run(lambda: None))
        await asyncio.sleep(30)
        assert (first.role, first.problem) == ("leading", "")
        assert (second.role, second.problem) == ("standby", "")
        leading.cancel()
        await first.release()
        await asyncio.sleep(3)
        assert (second.role, second.problem) == ("leading", "")
        assert changes == [True]
        standby.cancel()

    run(story())


def test_who_cannot_reach_the_api_server_neither_leads_nor_stands_by() -> None:
    async def story() -> None:
        api = OneLease()
        first, second = api.leadership("first"), api.leadership("second")
        changes: list[bool] = []
        tasks = [asyncio.create_task(first.run(lambda: changes.append(first.held)))]
        await asyncio.sleep(0.1)
        tasks.append(asyncio.create_task(second.run(lambda: None)))
        await asyncio.sleep(20)
        api.away = True
        await asyncio.sleep(RENEW_DEADLINE_S + 2)
        assert changes == [True, False]
        for each in (first, second):
            assert each.role == "standby"
            assert "the API server is away" in each.problem
        api.away = False
        await asyncio.sleep(DURATION_S)
        assert sorted(each.role for each in (first, second)) == ["leading", "standby"]
        assert (first.problem, second.problem) == ("", "")
        for task in tasks:
            task.cancel()

    run(story())


async def test_probes_tell_the_role_or_what_is_wrong() -> None:
    found = Readiness("", "leading")
    runner = await serve_probes(0, lambda: found)
    port = next(address[1] for address in runner.addresses if len(address) == 2)  # of IPv4
    url = f"http://127.0.0.1:{port}"

    async def ask(path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
            return answer.status, await answer.text()

    try:
        assert await ask("/readyz") == (200, "leading\n")
        found = Readiness("the watch is stale", "leading")
        assert await ask("/readyz") == (503, "the watch is stale\n")
        assert (await ask("/healthz"))[0] == 200, "what another process would not mend ends none"
    finally:
        await runner.cleanup()
