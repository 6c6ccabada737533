"""A watch on its way through the proxy: its events line by line, and what is done to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
from aiohttp import web

from tests.proof.proxy.rules import WatchAct, WatchRule, error_event

Rules = Sequence[WatchRule]


class Silence:
    """A time in which no watch brings anything. Connections stay open."""

    def __init__(self) -> None:
        self.on = False

    async def keep(self) -> None:
        """Return never."""
        await asyncio.Event().wait()


async def pass_on(
    request: web.BaseRequest,
    answer: aiohttp.ClientResponse,
    rules: Rules,
    silence: Silence,
) -> web.StreamResponse:
    """Bring the events of a watch to who asked for it, until either side ends it."""
    response = web.StreamResponse(status=answer.status)
    response.content_type = "application/json"
    response.enable_chunked_encoding()
    await response.prepare(request)
    stream = _Stream(response, request.path_qs, rules)
    async for line in answer.content:
        if silence.on:
            await silence.keep()
        if not await stream.take(line):
            break
    await stream.end()
    return response


class _Stream:
    """One watch."""

    def __init__(self, response: web.StreamResponse, path: str, rules: Rules) -> None:
        self._response = response
        self._path = path
        self._rules = rules
        self._late: set[asyncio.Task[None]] = set()

    async def take(self, line: bytes) -> bool:
        """Do with an event what the first rule that takes it says; whether the watch goes on."""
        text = line.decode()
        takers = [rule for rule in self._rules if rule.takes(self._path, text)]
        if not takers:
            await self._response.write(line)
            return True
        rule = takers[0]
        match rule.act:
            case WatchAct.DROP:
                return True
            case WatchAct.TWICE:
                await self._response.write(line)
                await self._response.write(line)
                return True
            case WatchAct.LATE:
                self._send_late(line, rule.seconds)
                return True
            case WatchAct.SILENT:
                await Silence().keep()
                return False
            case WatchAct.EXPIRED | WatchAct.ERROR:
                await self._response.write(error_event(rule.act))
                return False
            case WatchAct.CLOSE:
                return False

    def _send_late(self, line: bytes, seconds: float) -> None:
        async def send() -> None:
            await asyncio.sleep(seconds)
            try:
                await self._response.write(line)
            except ConnectionError:
                return  # nobody listens any more

        task = asyncio.create_task(send())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def end(self) -> None:
        """End the answer in order, without what is late."""
        for task in self._late:
            task.cancel()
        await self._response.write_eof()
