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
import json
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import aiohttp

from ratchet.core.config import Engine, ModelConfig
from ratchet.core.replies import FailureKind, ModelFailure, RawReply
from ratchet.edges.model_answers import Unreadable, failure, read_failure, read_reply
from ratchet.ports import ModelRequest, PortError

MAX_ANSWER_BYTES = 8 * 2**20
"""Longest answer that is read. A long one of a large model has some 100 KiB."""

ABORT_TIMEOUT_S = 2.0
IDLE_CONNECTION_S = 4.0
KEY_LIFE_S = 60.0
"""How long a key is kept before its Secret is read again; a 401 or 403 ends it at once."""

KeyReader = Callable[[str, str, str], Awaitable[str]]
"""Reads a key from (namespace, Secret name, key in the Secret).

Raises LookupError, with a sentence, if the Secret or the key in it is not there, and PortError if
it cannot be read now.
"""


class ModelClient:
    """Calls model endpoints (ports.Model). One object for all tasks: it holds the connections."""

    def __init__(self, read_key: KeyReader) -> None:
        self._read_key = read_key
        self._keys: dict[tuple[str, str, str], tuple[float, str]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._aborts: set[asyncio.Task[None]] = set()

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
        config = request.config
        try:
            headers = await self._headers(request)
        except LookupError as err:
            # Not str(err): a KeyError's would put quotes round the sentence.
            why = " ".join(str(arg) for arg in err.args)
            return failure(FailureKind.CONFIGURATION, config, f"has no key: {why}")
        except PortError as err:
            return failure(
                FailureKind.RETRY, config, f"was not asked, because its key cannot be read: {err}"
            )
        try:
            answer = await self._post(request, headers)
        except asyncio.CancelledError:
            self._abort(request, headers)
            raise
        except TimeoutError:
            self._abort(request, headers)
            return failure(FailureKind.RETRY, config, _too_slow(config))
        except (aiohttp.InvalidURL, aiohttp.ClientSSLError) as err:
            return failure(FailureKind.CONFIGURATION, config, f"cannot be reached: {_name(err)}")
        except aiohttp.ClientError as err:
            return failure(FailureKind.RETRY, config, f"did not answer: {_name(err)}")
        if isinstance(answer, ModelFailure) and answer.status in (401, 403):
            self._keys.pop(_key_place(request), None)
        return answer

    async def _post(
        self, request: ModelRequest, headers: dict[str, str]
    ) -> RawReply | ModelFailure:
        config = request.config
        timeout = aiohttp.ClientTimeout(
            total=config.total_timeout_s, connect=config.connect_timeout_s
        )
        url = f"{config.url.rstrip('/')}/chat/completions"
        async with self._open_session().post(
            url, data=_body(request), headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            try:
                raw = await _read(response.content)
                if response.status == 200:
                    return read_reply(raw, config)
            except Unreadable as err:
                return failure(FailureKind.RETRY, config, f"answered what cannot be read: {err}")
            return read_failure(response.status, raw, response.headers.get("Retry-After"), config)

    async def _headers(self, request: ModelRequest) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if request.config.secret_name:
            headers["Authorization"] = f"Bearer {await self._key(request)}"
        if request.config.engine is Engine.SGLANG:
            headers["x-smg-routing-key"] = request.routing_key
        return headers

    async def _key(self, request: ModelRequest) -> str:
        place = _key_place(request)
        known = self._keys.get(place)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        key = (await self._read_key(*place)).strip()
        if not key or not key.isprintable() or not key.isascii():
            raise LookupError(
                f"key {place[2]!r} of Secret {place[0]}/{place[1]} is empty or is not one line of "
                "printable ASCII; write the key into it again"
            )
        self._keys[place] = (time.monotonic() + KEY_LIFE_S, key)
        return key

    def _open_session(self) -> aiohttp.ClientSession:
        """The session, made on first use because it belongs to the running event loop."""
        if self._session is None:
            # No bound on connections: how many requests may run is decided elsewhere, and a wait
            # in a pool would count as connect time.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _abort(self, request: ModelRequest, headers: dict[str, str]) -> None:
        """Tell SGLang to drop the request, in the background, so that a cancel is not held up."""
        if request.config.engine is not Engine.SGLANG or self._session is None:
            return
        task = asyncio.create_task(self._post_abort(self._session, request, headers))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _post_abort(
        self, session: aiohttp.ClientSession, request: ModelRequest, headers: dict[str, str]
    ) -> None:
        root = request.config.url.rstrip("/").removesuffix("/v1")
        try:
            async with session.post(
                f"{root}/abort_request",
                json={"rid": request.rid},
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=ABORT_TIMEOUT_S),
                allow_redirects=False,
            ):
                pass
        except (aiohttp.ClientError, TimeoutError):
            # The connection is closed already, which frees the engine within 4 s. The abort only
            # makes that sooner, and routers do not pass it on (404).
            pass


async def _read(stream: aiohttp.StreamReader) -> bytes:
    """The whole body. Raises Unreadable beyond MAX_ANSWER_BYTES."""
    chunks, size = [], 0
    async for chunk in stream.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise Unreadable(f"it is longer than {MAX_ANSWER_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _body(request: ModelRequest) -> bytes:
    """The body as it is sent. What only SGLang knows is put at its end, so that nothing has to be
    parsed again and the common prefix of two turns stays common."""
    if request.config.engine is not Engine.SGLANG:
        return request.body.encode()
    extra = json.dumps({"cache_salt": request.namespace, "rid": request.rid})
    return f"{request.body.rstrip().removesuffix('}')},{extra[1:]}".encode()


def _key_place(request: ModelRequest) -> tuple[str, str, str]:
    return request.namespace, request.config.secret_name, request.config.secret_key


def _name(err: Exception) -> str:
    text = str(err)
    return f"{type(err).__name__}: {text}" if text else type(err).__name__


def _too_slow(config: ModelConfig) -> str:
    return (
        f"did not connect within {config.connect_timeout_s:g} s or did not answer within "
        f"{config.total_timeout_s:g} s"
    )
