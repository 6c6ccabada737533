"""The fake's HTTP side: routes, authorization, start, stop, drain and crash."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from sglang_fake import validate, wire
from sglang_fake.answers import done, empty, flushed, json_answer, refused_answer
from sglang_fake.chat import Chat
from sglang_fake.health import Health
from sglang_fake.record import Seen
from sglang_fake.script import Script
from sglang_fake.settings import Settings
from sglang_fake.wire import Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Recorded with --api-key and --admin-api-key: these are open, /ping is not.
_OPEN = ("/health", "/health_generate", "/ready", "/metrics")
_ADMIN = ("/abort_request", "/flush_cache", "/pause_generation", "/continue_generation")


class FakeSGLang:
    """A fake SGLang server: `async with FakeSGLang(script) as fake: ... fake.base_url`.

    `requests` holds what it saw, `in_flight` how many requests it works on now. `pause`, `resume`,
    `drain` and `crash` do what an operator, SIGTERM and a lost engine do; a script can, too.
    """

    def __init__(
        self,
        script: Script,
        settings: Settings | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.settings = settings or Settings()
        self._host, self._port = host, port
        self._chat = Chat(script, self.settings, self, self._notify)
        self._health_state = Health(self._chat.engine, self.settings)
        self._born = time.time()
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.crashed = False
        self.ended = asyncio.Event()

    @property
    def url(self) -> str:
        """Root address of the server."""
        return f"http://{self._host}:{self._port}"

    @property
    def base_url(self) -> str:
        """What a client of the OpenAI API is given: the address with /v1."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[Seen]:
        """Every chat request since the start or the last reset, in order of arrival."""
        return self._chat.log.records

    @property
    def in_flight(self) -> int:
        """Requests that run or wait."""
        return self._chat.engine.in_flight

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        server = self._runner.server if self._runner is not None else None
        return 0 if server is None else len(server.connections)

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        app = web.Application(middlewares=[self._answer], client_max_size=64 * 2**20)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop at once; connections of requests in flight are closed without an answer."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        self._chat.engine.lose()
        await runner.cleanup()
        self.ended.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def drain(self) -> None:
        """What SIGTERM does: probes say 503 at once, new requests are still served, and the server
        stops once nothing is in flight (SGLang: 1.4 s after SIGTERM when idle, else within 5 s of
        the last answer)."""
        self._health_state.draining = True
        await asyncio.sleep(self.settings.drain_linger_s)
        await self.wait_until(lambda _: self.in_flight == 0, timeout_s=None)
        await self.stop()

    def begin_drain(self) -> None:
        """Drain in the background."""
        if not self._health_state.draining:
            self._health_state.draining = True
            self._spawn(self.drain())

    def hold_drain(self) -> None:
        """Say 503 to probes, as a server that drains, and serve on: something is in flight."""
        self._health_state.draining = True

    def play(self, script: Script) -> None:
        """Play another script from now on."""
        self._chat.script = script

    def pause(self, seconds: float | None = None) -> None:
        """What /pause_generation does in mode in_place, for `seconds` or until `resume`."""
        self._chat.engine.pause()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.resume)

    def resume(self) -> None:
        """What /continue_generation does."""
        self._chat.engine.resume()

    def crash(self) -> None:
        """Lose the engine: nothing in flight ends, /ready still says 200, /health hangs. After
        `crash_linger_s` every connection is cut and the server is gone, as recorded."""
        if not self.crashed:
            self.crashed = True
            self._chat.engine.die()
            self._spawn(self._vanish())

    async def _vanish(self) -> None:
        await asyncio.sleep(self.settings.crash_linger_s)
        server = self._runner.server if self._runner is not None else None
        for connection in list(server.connections) if server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()
        await self.stop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_until(
        self, condition: Callable[[Sequence[Seen]], bool], timeout_s: float | None = 5.0
    ) -> None:
        """Return as soon as `condition(self.requests)` holds. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition(self.requests):
                self._changed.clear()
                await self._changed.wait()

    def reset(self) -> None:
        """Forget what was seen, and which faults were played."""
        self._chat.reset()

    def _notify(self) -> None:
        self._changed.set()

    def _routes(self) -> list[web.RouteDef]:
        gets = {
            "/v1/models": self._models,
            "/v1/models/{name}": self._model,
            "/v1/loads": self._loads,
            "/model_info": self._model_info,
            "/server_info": self._server_info,
            "/metrics": self._metrics,
            "/ready": self._ready,
            "/ping": self._ping,
            "/health": self._health,
            "/health_generate": self._health,
            "/fake/requests": self._seen,
        }
        return [
            web.post("/v1/chat/completions", self._chat.handle),
            web.post("/abort_request", self._abort),
            web.post("/flush_cache", self._flush),
            web.post("/pause_generation", self._pause),
            web.post("/continue_generation", self._continue),
            web.post("/fake/reset", self._reset),
            web.post("/fake/crash", self._crash),
            *(web.get(path, handler, allow_head=False) for path, handler in gets.items()),
        ]

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._authorize(request)
            return await handler(request)
        except Refused as refused:
            return refused_answer(refused)
        except web.HTTPException as error:
            # 404 and 405 have the shape of FastAPI.
            allow = {"allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return json_answer({"detail": error.reason}, error.status, allow)

    def _authorize(self, request: web.Request) -> None:
        """Recorded: with an admin key set, admin routes want it, and it opens nothing else."""
        if request.path in _OPEN or request.path.startswith("/fake/"):
            return
        wanted = self.settings.api_key
        if request.path in _ADMIN and self.settings.admin_api_key is not None:
            wanted = self.settings.admin_api_key
        given = request.headers.get("Authorization", "").encode()
        if wanted is not None and not hmac.compare_digest(given, f"Bearer {wanted}".encode()):
            raise Refused(401, {"error": "Unauthorized"})

    async def _ready(self, request: web.Request) -> web.Response:
        return empty(200 if self._health_state.ready else 503)

    async def _ping(self, request: web.Request) -> web.Response:
        return empty(200 if self._health_state.ready else 503)

    async def _health(self, request: web.Request) -> web.Response:
        generate = self.settings.health_generation or request.path == "/health_generate"
        return empty(200 if await self._health_state.check(generate) else 503)

    async def _abort(self, request: web.Request) -> web.Response:
        body = validate.parse_body(await request.read(), request.headers.get("Content-Type", ""))
        self._chat.engine.abort(str(body.get("rid", "")), every=bool(body.get("abort_all")))
        return empty()

    async def _flush(self, request: web.Request) -> web.Response:
        if not self.in_flight:
            self._chat.flush_cache()
        return flushed()

    async def _pause(self, request: web.Request) -> web.Response:
        body = await _optional_body(request)
        # Not recorded: the default mode aborts what is in flight before it answers (sglang 0.5.23,
        # managers/tokenizer_manager.py:2267).
        if body.get("mode", "abort") == "abort":
            self._chat.engine.abort("", every=True)
            await self.wait_until(lambda _: self.in_flight == 0, timeout_s=None)
        self.pause()
        return done("Generation paused successfully.")

    async def _continue(self, request: web.Request) -> web.Response:
        await _optional_body(request)
        self.resume()
        return done("Generation continued successfully.")

    async def _crash(self, request: web.Request) -> web.Response:
        self.crash()
        return empty()

    async def _models(self, request: web.Request) -> web.Response:
        return json_answer({"object": "list", "data": [self._entry()]})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name != self.settings.model:
            raise wire.unknown_model(name)
        return json_answer(self._entry())

    def _entry(self) -> dict[str, Any]:
        born, length = int(self._born), self.settings.context_length
        return wire.model_entry(self.settings.model, born, length)

    async def _model_info(self, request: web.Request) -> web.Response:
        return json_answer(wire.model_info(self.settings))

    async def _server_info(self, request: web.Request) -> web.Response:
        return json_answer(wire.server_info(self.settings))

    async def _loads(self, request: web.Request) -> web.Response:
        if request.query.get("dp_rank", "0") != "0":
            return json_answer(wire.no_loads(time.time()))
        core_only = request.query.get("include") == "core"
        return json_answer(wire.loads(self._chat.load(), time.time(), core_only))

    async def _metrics(self, request: web.Request) -> web.Response:
        text = wire.metrics(self._chat.load()).encode()
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=text, headers={"Content-Type": kind})

    async def _seen(self, request: web.Request) -> web.Response:
        key = request.query.get("key")
        chosen = [seen.as_json() for seen in self.requests if key is None or seen.key == key]
        return json_answer({"requests": chosen, "in_flight": self.in_flight})

    async def _reset(self, request: web.Request) -> web.Response:
        self.reset()
        return empty()


async def _optional_body(request: web.Request) -> dict[str, Any]:
    """The body of an order to the server; none at all is {}."""
    raw = await request.read()
    return validate.parse_body(raw, request.headers.get("Content-Type", "")) if raw else {}
