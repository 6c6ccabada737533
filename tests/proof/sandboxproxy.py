"""A proxy between operator and sandbox servers that loses, repeats and spoils what passes.

It understands HTTP, so it can lose the answer of a request that the server has carried out. TLS
ends here with the generation's own certificate and key, so that the operator takes it for the
sandbox it has pinned. In front of the sandboxes of a process node::

    async with SandboxProxy() as proxy, ProcessNode(cluster, logs, front=proxy.front) as node:
        lost = proxy.add(Rule(Harm.DROP_AFTER_COMMIT, "PUT", f"/v1/calls/{uid}/2/0", times=2))
        ...
        await lost.wait()

aiohttp, which the operator uses, sends a GET or PUT whose connection was cut a second time by
itself and tells nobody. A cut that the operator is to notice therefore takes `times=2`, or
`Harm.SILENCE`, which ends by the operator's own timeout.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

import aiohttp
from aiohttp import web
from ratchet_sandbox import protocol

from tests.proof.node.addresses import free_address

BODY_LIMIT: Final = 16 * 1024 * 1024
PASSED_ON: Final = ("Content-Type", "Retry-After")
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset (socket(7))."""


class Harm(StrEnum):
    """What is done to a request. Only those that say so let it reach the server."""

    DROP_AFTER_COMMIT = "drop-after-commit"
    """The server carries it out and answers; the connection is reset instead of the answer."""
    SILENCE = "silence"
    """The server carries it out and answers; nothing comes back for `seconds`, then a reset."""
    STATUS = "status"
    """Answered with `status` (and `retry_after`) here; the server never sees it."""
    RESET = "reset"
    """The connection is reset; the server never sees it."""
    HANG = "hang"
    """Nothing happens for `seconds`, then a reset; the server never sees it."""
    DELAY = "delay"
    """It reaches the server `seconds` later, and is answered."""
    TWICE = "twice"
    """The server gets it twice; the first answer comes back."""
    TRUNCATE = "truncate"
    """The server answers; half of the answer's body comes back, then an orderly end."""
    RESET_IN_BODY = "reset-in-body"
    """The server answers; half of the answer's body comes back, then a reset."""


@dataclass(slots=True)
class Rule:
    """Harm for some requests: of those that match, from the `nth` on, `times` many (0: all).

    `method` and `path` are regular expressions: the whole method, and any part of the path with
    its query. Requests that match are counted before another rule may have harmed them.
    """

    harm: Harm
    method: str = ".*"
    path: str = ""
    nth: int = 1
    times: int = 1
    seconds: float = 1.0
    status: int = 503
    retry_after: int | None = None
    seen: int = 0
    """Requests that matched."""
    struck: int = 0
    """Requests that were harmed."""
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, method: str, path: str) -> bool:
        """Count this request; whether it is one to harm."""
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        self.seen += 1
        return self.seen >= self.nth and (not self.times or self.seen < self.nth + self.times)

    def strike(self) -> None:
        """Note that a request was harmed."""
        self.struck += 1
        self.happened.set()

    async def wait(self, within_s: float = 60.0) -> None:
        """Wait until it has harmed a request."""
        async with asyncio.timeout(within_s):
            await self.happened.wait()


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that came by."""

    method: str
    path: str
    harm: Harm | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class SandboxProxy:
    """In front of any number of sandbox servers, one listening address for each. `async with`."""

    def __init__(self, upstream_port: int = protocol.HTTPS_PORT) -> None:
        self.rules: list[Rule] = []
        """In force from when they are added; the first that takes a request harms it."""
        self.passed: list[Passed] = []
        """Every request that came by, in order of its arrival."""
        self._upstream_port = upstream_port
        self._runners: list[web.AppRunner] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        # aiohttp would send a GET or PUT twice by itself, and spoil what this proxy promises.
        self._session._retry_connection = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        if self._session is not None:
            await self._session.close()

    def add(self, rule: Rule) -> Rule:
        """Put a rule in force, and return it."""
        self.rules.append(rule)
        return rule

    async def front(self, address: str, certificate: str, key: str) -> str:
        """Listen for the server at `address`; the address to dial instead of it.

        `certificate` and `key` are paths of PEM files, which are read at once.
        """
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        app = web.Application(client_max_size=BODY_LIMIT)

        async def take(request: web.Request) -> web.StreamResponse:
            return await self._take(request, address)

        app.router.add_route("*", "/{path:.*}", take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        ours = free_address()
        await web.TCPSite(runner, ours, protocol.HTTPS_PORT, ssl_context=tls).start()
        return ours

    async def _take(self, request: web.Request, server: str) -> web.StreamResponse:
        body = await request.read()
        rule = self._rule_for(request.method, request.path_qs)
        self.passed.append(Passed(request.method, request.path_qs, rule.harm if rule else None))
        try:
            if rule is None:
                return _whole(await self._forward(request, server, body))
            made_up = await _instead(rule, request)
            if made_up is not None:
                return made_up
            return await self._spoil(rule, request, server, body)
        except (aiohttp.ClientError, OSError):  # the server is away: so are we
            return _reset(request)

    def _rule_for(self, method: str, path: str) -> Rule | None:
        takers = [rule for rule in self.rules if rule.takes(method, path)]
        return takers[0] if takers else None

    async def _spoil(
        self, rule: Rule, request: web.Request, server: str, body: bytes
    ) -> web.StreamResponse:
        """The harms that let the request reach the server."""
        answer = await self._forward(request, server, body)
        if rule.harm is Harm.TWICE:
            await self._forward(request, server, body)
        rule.strike()
        match rule.harm:
            case Harm.DROP_AFTER_COMMIT:
                return _reset(request)
            case Harm.SILENCE:
                await asyncio.sleep(rule.seconds)
                return _reset(request)
            case Harm.TRUNCATE | Harm.RESET_IN_BODY:
                return await _half(request, answer, orderly=rule.harm is Harm.TRUNCATE)
            case _:
                return _whole(answer)

    async def _forward(self, request: web.Request, server: str, body: bytes) -> Answer:
        if self._session is None:
            raise RuntimeError("use the proxy as `async with SandboxProxy() as proxy`")
        headers = {k: v for k, v in request.headers.items() if k in ("Authorization",)}
        async with self._session.request(
            request.method,
            f"https://{server}:{self._upstream_port}{request.raw_path}",
            headers=headers,
            data=body or None,
            ssl=False,  # who is there was decided when the listener was made
            allow_redirects=False,
        ) as answer:
            passed_on = {k: answer.headers[k] for k in PASSED_ON if k in answer.headers}
            return Answer(answer.status, passed_on, await answer.read())


async def _instead(rule: Rule, request: web.Request) -> web.StreamResponse | None:
    """What a harm does before the server could see the request; None: the server is to see it."""
    match rule.harm:
        case Harm.STATUS:
            rule.strike()
            after = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
            return web.Response(status=rule.status, headers=after, text="made up by the proxy")
        case Harm.RESET:
            rule.strike()
            return _reset(request)
        case Harm.HANG:
            rule.strike()
            await asyncio.sleep(rule.seconds)
            return _reset(request)
        case Harm.DELAY:
            await asyncio.sleep(rule.seconds)
            return None
        case _:
            return None


def _whole(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def _reset(request: web.Request) -> web.Response:
    """Reset the connection; what is returned has nowhere to go."""
    transport = request.transport
    if transport is not None:
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        transport.abort()
    return web.Response()


async def _half(request: web.Request, answer: Answer, *, orderly: bool) -> web.StreamResponse:
    """The answer's head and half of its body."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if orderly and request.transport is not None:
        request.transport.close()
    else:
        _reset(request)
    return response
