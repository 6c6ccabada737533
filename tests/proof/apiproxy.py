"""A proxy in front of the API server that loses answers, refuses, hangs, repeats, and spoils watches.

It understands HTTP, so it can lose the answer of a write that the server has carried out. The
operator reaches it through a kubeconfig that it writes::

    async with ApiProxy(await upstream(cluster), folder) as proxy:
        OperatorProcess(str(proxy.kubeconfig), ...)
        lost = proxy.add(Rule(Act.ANSWER_LOST, "POST", "/agentturns", body='"kind": ?"Turn"'))
        ...
        assert lost.struck == 1
        await proxy.away(5)

Towards the server it has the client certificate of the cluster's kubeconfig.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections import Counter
from pathlib import Path
from typing import Final, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.proof.proxy import streams
from tests.proof.proxy.rules import (
    REFUSALS,
    Act,
    MadeUp,
    Rule,
    WatchRule,
    refusal,
    resource_of,
    unauthorized,
)
from tests.proof.upstream import Upstream

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset (socket(7))."""
NOT_PASSED_ON: Final = (
    "Host", "Connection", "Authorization", "Accept-Encoding", "Content-Length", "Transfer-Encoding",
    "Keep-Alive",
)  # fmt: skip
HOST = "127.0.0.1"
LINE_MAX: Final = 4 * 2**20


class ApiProxy:
    """In front of one API server. Use as `async with`.

    `folder` gets the kubeconfig. With `tls` it serves HTTPS; `host` and `port` are where.
    """

    def __init__(
        self,
        upstream: Upstream,
        folder: Path,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = HOST,
        port: int = 0,
    ) -> None:
        self.rules: list[Rule] = []
        """In force from when they are added; the first that takes a request acts on it."""
        self.watch_rules: list[WatchRule] = []
        self.tokens: set[str] | None = None
        """Bearer tokens that hold; None: nobody is asked for one."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Requests by method and resource; a watch counts as WATCH."""
        self.unauthorized = 0
        """Requests that were answered with 401."""
        self.port = port
        self.host = host
        self.kubeconfig = folder / "proxy.kubeconfig"
        self._upstream = upstream
        self._tls = tls
        self._silence = streams.Silence()
        self._web = web.Server(self._serve, access_log=None, handler_cancellation=True)
        self._listener: asyncio.Server | None = None
        self._session: aiohttp.ClientSession | None = None
        self._forwarding: set[asyncio.Task[MadeUp]] = set()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._upstream.tls, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            read_bufsize=LINE_MAX,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )
        # aiohttp would send a GET or PUT twice by itself, and spoil what this proxy promises.
        self._session._retry_connection = False
        await self.come_back()
        await asyncio.to_thread(self._write_kubeconfig)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_away()
        await self._web.shutdown(0.1)
        if self._forwarding:
            await asyncio.wait(self._forwarding, timeout=5)
        assert self._session is not None
        await self._session.close()

    # --- for tests ---

    def add(self, rule: Rule) -> Rule:
        """Put a rule in force, and return it."""
        self.rules.append(rule)
        return rule

    def add_watch(self, rule: WatchRule) -> WatchRule:
        """Put a rule for watches in force, and return it."""
        self.watch_rules.append(rule)
        return rule

    def clear(self) -> None:
        """No rule is in force any more."""
        self.rules.clear()
        self.watch_rules.clear()

    def go_away(self) -> None:
        """Refuse connections, and cut those that are there."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._web.connections):
            if connection.transport is not None:
                _cut(connection.transport)

    async def come_back(self) -> None:
        """Take connections again, at the same address."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._web, self.host, self.port, ssl=self._tls)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def away(self, seconds: float) -> None:
        """Be away for so long."""
        self.go_away()
        await asyncio.sleep(seconds)
        await self.come_back()

    def silence(self, *, on: bool) -> None:
        """From now on no watch brings anything; those that fell silent stay so when it is over."""
        self._silence.on = on

    # --- serving ---

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        watching = request.query.get("watch") in ("1", "true")
        method = "WATCH" if watching else request.method
        self.counts[method, resource_of(request.path)] += 1
        if not self._is_known(request):
            self.unauthorized += 1
            return _answer(unauthorized())
        try:
            if watching:
                return await self._watch(request)
            return await self._request(request)
        except (aiohttp.ClientError, ConnectionError):  # the server is away: so are we
            return _reset(request)

    def _is_known(self, request: web.BaseRequest) -> bool:
        if self.tokens is None:
            return True
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return kind.lower() == "bearer" and token in self.tokens

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._session is not None
        async with self._session.get(self._url(request), headers=_headers(request)) as answer:
            if answer.status != 200:
                return _answer(await _whole(answer))
            return await streams.pass_on(request, answer, self.watch_rules, self._silence)

    async def _request(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        rule = self._rule_for(request, body)
        if rule is None:
            return _answer(await self._deliver(request, body))
        if rule.act in REFUSALS:
            return _answer(refusal(rule.act, rule.seconds))
        if rule.act is Act.HANG:
            await asyncio.sleep(rule.seconds)
        if rule.act in (Act.RESET, Act.HANG):
            return _reset(request)
        late_s = rule.seconds if rule.act is Act.DELAY else 0.0
        answer = await self._deliver(request, body, late_s)
        if rule.act is Act.ANSWER_LOST:
            return _reset(request)
        if rule.act is Act.GATEWAY_TIMEOUT:
            return _answer(refusal(rule.act))
        if rule.act is Act.TWICE:
            answer = await self._deliver(request, body)
        return _answer(answer)

    def _rule_for(self, request: web.BaseRequest, body: bytes) -> Rule | None:
        text = body.decode("utf-8", "replace")
        takers = [rule for rule in self.rules if rule.takes(request.method, request.path_qs, text)]
        return takers[0] if takers else None

    async def _deliver(self, request: web.BaseRequest, body: bytes, late_s: float = 0.0) -> MadeUp:
        """Have the server carry it out, also if who asked is gone meanwhile."""
        task = asyncio.create_task(self._forward(request, body, late_s))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)
        return await asyncio.shield(task)

    async def _forward(self, request: web.BaseRequest, body: bytes, late_s: float) -> MadeUp:
        assert self._session is not None
        method, url, headers = request.method, self._url(request), _headers(request)
        await asyncio.sleep(late_s)
        async with self._session.request(
            method, url, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            return await _whole(answer)

    def _url(self, request: web.BaseRequest) -> URL:
        return URL(f"{self._upstream.url}{request.raw_path}", encoded=True)

    def _write_kubeconfig(self) -> None:
        """JSON is YAML."""
        scheme = "http" if self._tls is None else "https"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "clusters": [
                {"name": "proxy", "cluster": {"server": f"{scheme}://{self.host}:{self.port}"}}
            ],
            "users": [{"name": "proxy", "user": {}}],
        }
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.write_text(json.dumps(config))


def _headers(request: web.BaseRequest) -> CIMultiDict[str]:
    headers = CIMultiDict(request.headers)
    for name in NOT_PASSED_ON:
        headers.popall(name, None)
    headers["Accept-Encoding"] = "identity"
    return headers


async def _whole(answer: aiohttp.ClientResponse) -> MadeUp:
    kept = ("Content-Type", "Retry-After")
    headers = {name: answer.headers[name] for name in kept if name in answer.headers}
    return MadeUp(answer.status, await answer.read(), headers)


def _answer(made: MadeUp) -> web.Response:
    return web.Response(status=made.status, body=made.body, headers=made.headers)


def _reset(request: web.BaseRequest) -> web.Response:
    """Reset the connection; what is returned has nowhere to go."""
    if request.transport is not None:
        _cut(request.transport)
    return web.Response()


def _cut(transport: asyncio.BaseTransport) -> None:
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
