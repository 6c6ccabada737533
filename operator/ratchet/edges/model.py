"""The model's edge: one OpenAI chat completion over HTTP, and what its answer means.

Not streamed, on purpose. Recordings of SGLang 0.5.23 show that its streaming tool parsers
lose text: with the `mistral` parser every `]` of plain text disappears
from a request with tools, the second call of an array leaks out as text, and with both recorded
parsers a call whose JSON is broken becomes one with empty arguments. Overload, moreover, is a
200 there. Not streamed, the same texts come through whole and a full queue is a 503.

No retries here either: one layer decides about them, and it is not this one. For the same reason
an idle connection is dropped before the server would drop it (uvicorn, which SGLang uses, closes
after 5 s): a request on a connection that is just being closed would fail for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp
from multidict import CIMultiDict

from ratchet.core.config import Engine, ModelConfig
from ratchet.core.replies import FailureKind, ModelFailure, RawReply
from ratchet.edges.access import Access, AccessMissing, Reach
from ratchet.edges.model_answers import (
    Unreadable,
    failure,
    read_failure,
    read_reply,
    tls_failure,
    unanswered,
)
from ratchet.ports import ModelRequest, PortError

MAX_ANSWER_BYTES = 8 * 2**20
"""Longest answer that is read. A long one of a large model has some 100 KiB."""
MAX_ERROR_BYTES = 64 * 2**10
"""What is read of an answer that is no reply; the rest of it says nothing more."""

STALL_S = 60.0
"""Longest silence inside an answer that has begun. One that is not streamed comes in one piece."""
ABORT_TIMEOUT_S = 2.0
ABORT_AGAIN_S = 1.0
"""When an abort is repeated: one that overtakes its request finds nothing to end."""
IDLE_CONNECTION_S = 4.0


class ModelClient:
    """Calls model endpoints (ports.Model). One object for all tasks: it holds the connections."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None
        self._aborts: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections, after the aborts under way (at most 2 s)."""
        self._closing.set()
        if self._aborts:
            await asyncio.wait(set(self._aborts), timeout=ABORT_TIMEOUT_S)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, request: ModelRequest) -> RawReply | ModelFailure:
        """Send one request, once; a failure is returned, not raised.

        Cancelling closes the connection at once and, at SGLang, ends the request on the engine
        too: it would otherwise notice the closed connection only at the next multiple of 4 s.
        """
        config, begun = request.config, time.monotonic()
        try:
            reach = await self._access.of(config, request.namespace)
        except AccessMissing as err:
            return failure(
                FailureKind.CONFIGURATION, config, f"cannot be asked: {err}", reached=False
            )
        except PortError as err:
            return failure(
                FailureKind.RETRY,
                config,
                f"was not asked, because its key cannot be read: {err}",
                reached=False,
            )
        answer = await self._send(request, reach)
        if isinstance(answer, RawReply):
            return answer
        if _may_be_outdated(answer):
            answer = await self._look_again(request, reach, begun, answer)
        return dataclasses.replace(answer, message=reach.hide(answer.message))

    async def _send(self, request: ModelRequest, reach: Reach) -> RawReply | ModelFailure:
        """One try. Whatever leaves the engine at work on it for nothing is followed by an abort."""
        config = request.config
        try:
            return await self._post(request, reach)
        except asyncio.CancelledError:
            self._abort(request, reach)
            raise
        except aiohttp.ConnectionTimeoutError:
            what = f"did not let itself be connected to within {config.connect_timeout_s:g} s"
            return failure(FailureKind.RETRY, config, what, reached=False)
        except TimeoutError as err:
            self._abort(request, reach)
            what = str(err) or f"did not answer within {config.total_timeout_s:g} s"
            return failure(FailureKind.RETRY, config, what)
        except aiohttp.ClientSSLError as err:
            return tls_failure(err, config, config.namespace or request.namespace)
        except aiohttp.ClientConnectorError as err:
            return unanswered(err, config, reached=False)
        except (aiohttp.InvalidURL, UnicodeError) as err:
            # A UnicodeError is a host name that no resolver takes (a label over 63 characters).
            what = f"has a URL that cannot be asked ({type(err).__name__})"
            return failure(FailureKind.CONFIGURATION, config, what, reached=False)
        except aiohttp.ClientError as err:
            self._abort(request, reach)
            return unanswered(err, config)

    async def _post(self, request: ModelRequest, reach: Reach) -> RawReply | ModelFailure:
        config, begun = request.config, False
        try:
            async with (
                asyncio.timeout(None) as silence,
                self._open_session().post(
                    f"{config.url.rstrip('/')}/chat/completions",
                    data=_body(request),
                    headers=_headers(request, reach),
                    timeout=aiohttp.ClientTimeout(
                        total=config.total_timeout_s, connect=config.connect_timeout_s
                    ),
                    ssl=reach.tls,
                    allow_redirects=False,
                    trace_request_ctx=(silence, config.first_byte_timeout_s),
                ) as response,
            ):
                begun = True
                return await _answer(response, config, silence)
        except TimeoutError as err:
            if silence.expired():
                raise TimeoutError(_silent(config, begun)) from err
            raise

    async def _look_again(
        self, request: ModelRequest, reach: Reach, begun: float, refusal: ModelFailure
    ) -> ModelFailure:
        """A refusal of a key or a CA that was replaced meanwhile is to be tried again."""
        try:
            newer = await self._access.of(request.config, request.namespace, newer_than=begun)
        except (AccessMissing, PortError):
            # What the server said is said; the next request names what is missing by then.
            return refusal
        if newer == reach:
            self._access.forget(request.config, request.namespace)
            return refusal
        what = "was asked with a key or a CA that was replaced meanwhile"
        return failure(
            FailureKind.RETRY, request.config, what, refusal.status, reached=refusal.reached
        )

    def _open_session(self) -> aiohttp.ClientSession:
        """The session, made on first use because it belongs to the running event loop."""
        if self._session is None:
            # No bound on connections: how many requests may run is decided elsewhere, and a wait
            # in a pool would count as connect time.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S)
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_start_first_byte)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace]
            )
        return self._session

    def _abort(self, request: ModelRequest, reach: Reach) -> None:
        """Tell SGLang to drop the request, in the background, so that a cancel is not held up."""
        if request.config.engine is not Engine.SGLANG or self._session is None:
            return
        task = asyncio.create_task(self._abort_twice(self._session, request, reach))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _abort_twice(
        self, session: aiohttp.ClientSession, request: ModelRequest, reach: Reach
    ) -> None:
        refused = await _post_abort(session, request, reach, reach.admin_headers) in (401, 403)
        if not refused:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ABORT_AGAIN_S):
                    await self._closing.wait()
        # A server without an admin key of its own wants the other one.
        headers = reach.headers if refused else reach.admin_headers
        await _post_abort(session, request, reach, headers)


async def _start_first_byte(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    """The request is on its way: from now on the first byte of its answer is waited for."""
    if context.trace_request_ctx is not None:
        limit, seconds = context.trace_request_ctx
        if seconds is not None:
            limit.reschedule(asyncio.get_running_loop().time() + seconds)


async def _post_abort(
    session: aiohttp.ClientSession, request: ModelRequest, reach: Reach, headers: CIMultiDict[str]
) -> int | None:
    """The status of the answer, None without one.

    The connection of the request is closed already, which frees the engine within 4 s. The abort only
    makes that sooner, and routers do not pass it on (404): so nobody hears of one that fails.
    """
    root = request.config.url.rstrip("/").removesuffix("/v1")
    try:
        async with session.post(
            f"{root}/abort_request",
            json={"rid": request.rid},
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=ABORT_TIMEOUT_S),
            ssl=reach.tls,
            allow_redirects=False,
        ) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return None


async def _answer(
    response: aiohttp.ClientResponse, config: ModelConfig, silence: asyncio.Timeout
) -> RawReply | ModelFailure:
    raw = bytearray()
    if response.status != 200:
        # The status counts, also where the body is cut.
        with contextlib.suppress(aiohttp.ClientError):
            await _read(raw, response.content, silence, MAX_ERROR_BYTES)
        retry_after = response.headers.get("Retry-After")
        return read_failure(response.status, bytes(raw), retry_after, config)
    try:
        await _read(raw, response.content, silence, MAX_ANSWER_BYTES)
        if len(raw) > MAX_ANSWER_BYTES:
            raise Unreadable(f"it is longer than {MAX_ANSWER_BYTES} bytes")
        return read_reply(bytes(raw), config)
    except Unreadable as err:
        return failure(FailureKind.RETRY, config, f"answered what cannot be read: {err}")


async def _read(
    into: bytearray, stream: aiohttp.StreamReader, silence: asyncio.Timeout, most: int
) -> None:
    """Read the body to its end, or until it is longer than `most` bytes."""
    now = asyncio.get_running_loop().time
    silence.reschedule(now() + STALL_S)
    async for chunk in stream.iter_any():
        silence.reschedule(now() + STALL_S)
        into += chunk
        if len(into) > most:
            return


def _body(request: ModelRequest) -> bytes:
    """The body as it is sent. What only SGLang knows is put at its end, so that nothing has to be
    parsed again and the common prefix of two turns stays common."""
    if request.config.engine is not Engine.SGLANG:
        return request.body.encode()
    extra = json.dumps({"cache_salt": request.namespace, "rid": request.rid})
    return f"{request.body.rstrip().removesuffix('}')},{extra[1:]}".encode()


def _headers(request: ModelRequest, reach: Reach) -> CIMultiDict[str]:
    headers = reach.headers
    headers["Content-Type"] = "application/json"
    if request.config.engine is Engine.SGLANG:
        headers["x-smg-routing-key"] = request.routing_key
    return headers


def _may_be_outdated(refusal: ModelFailure) -> bool:
    """Whether a key or a CA was refused, which may have been replaced since it was read."""
    return refusal.kind is FailureKind.CONFIGURATION and refusal.status in (None, 401, 403)


def _silent(config: ModelConfig, begun: bool) -> str:
    if begun:
        return f"began an answer and then sent nothing for {STALL_S:g} s"
    return f"sent no first byte of an answer within {config.first_byte_timeout_s:g} s"
