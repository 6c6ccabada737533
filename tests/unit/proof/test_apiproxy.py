"""What the proxy in front of the API server does to requests and watches, seen by a client."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration
from ratchet.edges.kube import ApiError, ApiUnreachable, Kube

from tests.proof.apiproxy import ApiProxy
from tests.proof.proxy.rules import Act, Rule, WatchAct, WatchRule, resource_of
from tests.proof.upstream import Upstream

TURNS = "/apis/ratchet.run/v1alpha1/namespaces/ns/agentturns"


class Server:
    """An API server that keeps what is posted, and whose watches tell what `events` says."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.events = [{"type": "ADDED", "object": {"n": n}} for n in range(4)]
        self.hold = asyncio.Event()
        self.arrived = asyncio.Event()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            return await self._watch(request)
        if request.method == "POST":
            self.posted.append(await request.json())
            self.arrived.set()
        return web.json_response({"kind": "Thing", "items": len(self.posted)})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in self.events:
            await response.write(json.dumps(event).encode() + b"\n")
        await self.hold.wait()
        return response


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def proxy(server: Server, tmp_path: Path) -> AsyncIterator[ApiProxy]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.serve)
    async with TestServer(app) as real:
        there = Upstream(str(real.make_url("")).rstrip("/"), ssl.create_default_context())
        async with ApiProxy(there, tmp_path) as proxy:
            yield proxy
        server.hold.set()


@pytest.fixture
async def api(proxy: ApiProxy) -> AsyncIterator[Kube]:
    async with await Kube.connect(proxy.kubeconfig) as api:
        yield api


async def _lines(proxy: ApiProxy, within_s: float = 0.5) -> list[Any]:
    """What a watch brings within some time, or until it is closed; `end` is the close."""
    found: list[Any] = []
    url = f"http://127.0.0.1:{proxy.port}{TURNS}?watch=true"
    try:
        async with (
            asyncio.timeout(within_s),
            aiohttp.ClientSession() as session,
            session.get(url) as answer,
        ):
            async for line in answer.content:
                event = json.loads(line)
                found.append(event["object"].get("n", event["object"].get("code")))
            found.append("end")
    except TimeoutError:
        pass
    return found


async def test_what_no_rule_takes_goes_through(api: Kube, server: Server, proxy: ApiProxy) -> None:
    assert await api.request("POST", TURNS, {"a": 1}) == {"kind": "Thing", "items": 1}
    assert server.posted == [{"a": 1}]
    assert proxy.counts == {("POST", "agentturns"): 1}


async def test_a_lost_answer_was_carried_out(api: Kube, server: Server, proxy: ApiProxy) -> None:
    rule = proxy.add(Rule(Act.ANSWER_LOST, "POST", "/agentturns", body='"a": ?2', nth=2))
    for number in (1, 2):
        await api.request("POST", TURNS, {"a": number})
    with pytest.raises(ApiUnreachable):
        await api.request("POST", TURNS, {"a": 2})
    await api.request("POST", TURNS, {"a": 2})
    assert (len(server.posted), rule.struck) == (4, 1)


@pytest.mark.parametrize("act", [Act.RESET, Act.HANG])
async def test_what_never_arrives_is_not_carried_out(
    api: Kube, server: Server, proxy: ApiProxy, act: Act
) -> None:
    proxy.add(Rule(act, seconds=0.1))
    with pytest.raises(ApiUnreachable):
        await api.request("POST", TURNS, {})
    assert not server.posted


@pytest.mark.parametrize(
    ("act", "status", "reason"),
    [
        (Act.CONFLICT, 409, "Conflict"),
        (Act.INVALID, 422, "Invalid"),
        (Act.BUSY, 429, "TooManyRequests"),
        (Act.ERROR, 500, "InternalError"),
        (Act.UNAVAILABLE, 503, "ServiceUnavailable"),
    ],
)
async def test_a_refusal_is_read_as_one(
    api: Kube, server: Server, proxy: ApiProxy, act: Act, status: int, reason: str
) -> None:
    proxy.add(Rule(act, seconds=2))
    with pytest.raises(ApiError) as caught:
        await api.request("POST", TURNS, {})
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert caught.value.retry_after == (2 if act is Act.BUSY else None)
    assert not server.posted


async def test_a_504_comes_after_the_commit(api: Kube, server: Server, proxy: ApiProxy) -> None:
    proxy.add(Rule(Act.GATEWAY_TIMEOUT))
    with pytest.raises(ApiError, match="504"):
        await api.request("POST", TURNS, {})
    assert len(server.posted) == 1


async def test_delivered_twice_gives_the_second_answer(
    api: Kube, server: Server, proxy: ApiProxy
) -> None:
    proxy.add(Rule(Act.TWICE))
    assert (await api.request("POST", TURNS, {}))["items"] == 2


async def test_a_request_arrives_although_its_sender_is_gone(
    api: Kube, server: Server, proxy: ApiProxy
) -> None:
    proxy.add(Rule(Act.DELAY, seconds=0.3))
    with pytest.raises(ApiUnreachable):
        await api.request("POST", TURNS, {}, timeout_s=0.05)
    assert not server.posted
    async with asyncio.timeout(5):
        await server.arrived.wait()
    assert len(server.posted) == 1


async def test_while_it_is_away_nobody_gets_through(
    api: Kube, server: Server, proxy: ApiProxy
) -> None:
    await api.request("POST", TURNS, {})
    proxy.go_away()
    with pytest.raises(ApiUnreachable):
        await api.request("POST", TURNS, {})
    await proxy.come_back()
    assert (await api.request("POST", TURNS, {}))["items"] == 2


async def test_only_tokens_that_hold_get_through(server: Server, proxy: ApiProxy) -> None:
    proxy.tokens = {"good"}
    there = Configuration(host=f"http://127.0.0.1:{proxy.port}")
    for token, passes in (("good", True), ("expired", False)):
        there.api_key["BearerToken"] = f"bearer {token}"
        async with Kube(there) as api:
            if passes:
                await api.request("POST", TURNS, {})
                continue
            with pytest.raises(ApiError, match="401"):
                await api.request("POST", TURNS, {})
    assert (len(server.posted), proxy.unauthorized) == (1, 1)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (WatchAct.DROP, [0, 2, 3]),
        (WatchAct.TWICE, [0, 1, 1, 2, 3]),
        (WatchAct.LATE, [0, 2, 3, 1]),
        (WatchAct.EXPIRED, [0, 410, "end"]),
        (WatchAct.ERROR, [0, 500, "end"]),
        (WatchAct.CLOSE, [0, "end"]),
        (WatchAct.SILENT, [0]),
    ],
)
async def test_a_watch_is_spoiled_at_one_event(
    proxy: ApiProxy, act: WatchAct, expected: list[Any]
) -> None:
    rule = proxy.add_watch(WatchRule(act, "/agentturns", event='"n": ?1', seconds=0.1))
    assert await _lines(proxy) == expected
    assert rule.struck == 1
    assert (await _lines(proxy))[:4] == [0, 1, 2, 3], "the rule is used up"


async def test_in_silence_connections_stay_open_and_nothing_comes(proxy: ApiProxy) -> None:
    proxy.silence(on=True)
    assert await _lines(proxy) == []
    proxy.silence(on=False)
    assert await _lines(proxy) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/namespaces/ns/pods/p/status", "pods/status"),
        ("/api/v1/namespaces", "namespaces"),
        (f"{TURNS}/x?fieldValidation=Strict", "agentturns"),
        ("/apis/ratchet.run/v1alpha1/agenttasks", "agenttasks"),
        ("/version", "/version"),
    ],
)
def test_a_path_is_counted_by_its_resource(path: str, resource: str) -> None:
    assert resource_of(path) == resource
