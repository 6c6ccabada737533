"""aiohttp responses with the headers that SGLang sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from sglang_fake.wire import Refused, dumps


def json_answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON body. SGLang's content type has no charset, so web.json_response does not fit."""
    data = dumps(body)
    return web.Response(body=data, status=status, content_type="application/json", headers=headers)


def empty(status: int = 200) -> web.Response:
    """No body, no content type."""
    return web.Response(status=status)


def done(message: str) -> web.Response:
    """Answer to an order to the server."""
    return json_answer({"message": message, "status": "ok"})


def flushed() -> web.Response:
    """Answer of /flush_cache. SGLang sends no content type; aiohttp insists on one."""
    return web.Response(
        text="Cache flushed.\nPlease check backend logs for more details. (When there are "
        "running or waiting requests, the operation will not be performed.)\n"
    )


def refused_answer(refused: Refused) -> web.Response:
    """An error answer: JSON, or plain text."""
    if isinstance(refused.body, dict):
        return json_answer(refused.body, refused.status, refused.headers)
    # A 200 that is text is a broken JSON answer of a script.
    if refused.status == 200:
        kind, data = "application/json", refused.body.encode()
        return web.Response(body=data, content_type=kind, headers=refused.headers)
    return web.Response(text=refused.body, status=refused.status, headers=refused.headers)


def event_answer(events: Sequence[str]) -> web.Response:
    """A stream of server-sent events."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    response = web.Response(body="".join(events).encode(), headers=headers)
    response.enable_chunked_encoding()
    return response


async def cut_answer(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """Send the head and the first half of an answer, and leave the rest out."""
    data = whole.body if isinstance(whole.body, bytes) else b""
    half = web.StreamResponse(status=whole.status)
    half.headers["Content-Type"] = whole.headers["Content-Type"]
    if whole.chunked:
        half.enable_chunked_encoding()
    else:
        half.content_length = len(data)
    await half.prepare(request)
    await half.write(data[: len(data) // 2])
    return half
