"""The proxy in front of a sandbox's server: each harm does what it says, once, where it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ratchet.edges.certificates import pinned_context
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Outcome

from tests.proof.sandboxproxy import Harm, Rule, SandboxProxy
from tests.unit.sandbox.servers import (
    NAME,
    UID,
    Http,
    ScriptedRunner,
    ServerProcess,
    running_server,
)

KEY = f"{UID}/1/0"


class Front:
    """A server, a runner, and a client that only knows the proxy and sends each request once."""

    def __init__(
        self, proxy: SandboxProxy, server: ServerProcess, http: Http, runner: ScriptedRunner
    ) -> None:
        self.proxy, self.server, self.http, self.runner = proxy, server, http, runner
        self.address = ""
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        self.session._retry_connection = False

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, bytes]:
        identity = self.server.identity
        async with self.session.request(
            method,
            f"https://{self.address}:{protocol.HTTPS_PORT}{path}",
            headers={"Authorization": f"Bearer {identity.token}"},
            ssl=pinned_context(identity.certificate),
            server_hostname=NAME,
            **more,
        ) as answer:
            return answer.status, await answer.read()

    async def put(self, key: str = KEY) -> tuple[int, bytes]:
        return await self.ask("PUT", f"/v1/calls/{key}?wait=5", json=self.http.order("true"))

    async def reserved(self) -> bool:
        """Whether the server knows the call, asked past the proxy."""
        return (await self.http.get(KEY))[0] == 200


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with running_server(tmp_path) as (server, http), SandboxProxy(server.port) as proxy:
        runner = ScriptedRunner(server, auto=Outcome.OK)
        await runner.join()
        front = Front(proxy, server, http, runner)
        files = (str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
        front.address = await proxy.front("127.0.0.1", *files)
        async with front.session:
            yield front


async def test_without_rules_requests_and_answers_pass_as_they_are(front: Front) -> None:
    status, record = await front.put()
    assert status == 200
    assert b'"outcome": "Ok"' in record
    assert (await front.ask("GET", f"/v1/calls/{UID}/2/0?epoch=1&ledger=x"))[0] == 409
    assert [(p.method, p.harm) for p in front.proxy.passed] == [("PUT", None), ("GET", None)]


async def test_an_answer_is_dropped_after_the_server_has_done_it(front: Front) -> None:
    rule = front.proxy.add(Rule(Harm.DROP_AFTER_COMMIT, "PUT", "/v1/calls/"))
    with pytest.raises(aiohttp.ClientError):
        await front.put()
    await rule.wait()
    assert await front.reserved()
    assert (await front.put())[0] == 200
    assert front.runner.runs == [KEY]


@pytest.mark.parametrize("harm", [Harm.RESET, Harm.HANG])
async def test_a_request_that_is_cut_off_never_reaches_the_server(front: Front, harm: Harm) -> None:
    rule = front.proxy.add(Rule(harm, seconds=0.1))
    with pytest.raises(aiohttp.ClientError):
        await front.put()
    assert rule.struck == 1
    assert not await front.reserved()


async def test_a_made_up_status_says_when_to_come_again(front: Front) -> None:
    front.proxy.add(Rule(Harm.STATUS, status=429, retry_after=3))
    assert (await front.put())[0] == 429
    assert not await front.reserved()
    assert (await front.put())[0] == 200


@pytest.mark.parametrize("harm", [Harm.TRUNCATE, Harm.RESET_IN_BODY])
async def test_half_an_answer_is_none(front: Front, harm: Harm) -> None:
    front.proxy.add(Rule(harm))
    with pytest.raises(aiohttp.ClientError):
        await front.put()
    assert await front.reserved()


async def test_a_request_is_delivered_twice_and_answered_once(front: Front) -> None:
    front.proxy.add(Rule(Harm.TWICE, path="/v1/epoch"))
    body = {"epoch": 4, "ledger": front.http.ledger}
    assert await front.ask("PUT", "/v1/epoch", json=body) == (200, b'{"epoch": 4}')
    front.proxy.add(Rule(Harm.TWICE, path="/v1/calls"))
    front.http.epoch = 4
    assert (await front.put())[0] == 200
    assert front.runner.runs == [KEY]


@pytest.mark.parametrize(("harm", "answered"), [(Harm.DELAY, True), (Harm.SILENCE, False)])
async def test_time_passes_before_an_answer_or_instead_of_one(
    front: Front, harm: Harm, answered: bool
) -> None:
    front.proxy.add(Rule(harm, seconds=0.3))
    loop = asyncio.get_running_loop()
    began = loop.time()
    (found,) = await asyncio.gather(front.put(), return_exceptions=True)
    assert loop.time() - began >= 0.3
    assert isinstance(found, tuple) == answered
    assert await front.reserved()


async def test_a_rule_takes_only_its_own_requests_and_counts_them(front: Front) -> None:
    rule = front.proxy.add(Rule(Harm.STATUS, "GET", "/v1/info", nth=2, times=2))
    statuses = [(await front.ask("GET", "/v1/info"))[0] for _ in range(5)]
    assert statuses == [200, 503, 503, 200, 200]
    assert (rule.seen, rule.struck) == (5, 2)
    assert (await front.ask("GET", "/v1/health"))[0] == 200


async def test_a_server_that_is_away_is_away_behind_the_proxy(front: Front) -> None:
    front.server.kill()
    with pytest.raises(aiohttp.ClientError):
        await front.put()
