"""Streamed answers: what they lose, and that an overload is a 200.

Where a stream is cut into chunks depends on the tokenizer, so chunks are joined before they are
compared.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from inference.contract.kit import (
    Json,
    Server,
    disruptive,
    events,
    fresh,
    needs,
    recorded,
    recording,
    shape,
)

PLAIN = ["stream/plain", "stream/include_usage", "stream/rid"]
TEXTS = [
    *("stream_compact_one", "stream_compact_two", "stream_compact_unknown_tool"),
    *("stream_compact_text_after", "stream_compact_text_before", "stream_compact_bad_json"),
    *("stream_compact_known_then_unknown", "stream_text_mentions_marker"),
    *("stream_text_with_brackets", "stream_text_with_brackets_no_tools"),
]
FORCED = [f"tools_forced_mistral/{name}" for name in TEXTS]


@dataclass(slots=True)
class Heard:
    """A whole stream: text, calls, why it ended, and the shapes of its chunks."""

    content: str = ""
    calls: list[list[str]] = field(default_factory=list)
    finish: str | None = None
    usage: bool = False
    shapes: list[Json] = field(default_factory=list)


def heard(chunks: list[Json]) -> Heard:
    whole = Heard()
    for chunk in chunks:
        if _no_stop(chunk) not in whole.shapes:
            whole.shapes.append(_no_stop(chunk))
        if not chunk["choices"]:
            whole.usage = "usage" in chunk
            continue
        [choice] = chunk["choices"]
        whole.finish = choice["finish_reason"] or whole.finish
        whole.content += choice["delta"].get("content") or ""
        for call in choice["delta"].get("tool_calls") or ():
            if call["index"] == len(whole.calls):
                whole.calls.append(["", ""])
            function = call["function"]
            whole.calls[call["index"]][0] += function["name"] or ""
            whole.calls[call["index"]][1] += function["arguments"]
    return whole


def _no_stop(chunk: Json) -> Json:
    """The chunk's shape without its stop token and cache, which are a number or null."""
    found: Json = shape(chunk)
    for choice in found["choices"]:
        del choice["matched_stop"]
    if chunk.get("usage"):
        del found["usage"]["prompt_tokens_details"]
    return found


@recorded(*PLAIN)
@pytest.mark.parametrize("name", PLAIN)
async def test_a_stream_has_the_recorded_chunks(name: str, server: Server) -> None:
    wanted = recording(name)
    theirs = heard(events(wanted["response"]["sse"]))
    answer = await server.send(wanted["request"])
    assert answer.headers["content-type"] == wanted["response"]["headers"]["content-type"]
    ours = heard(answer.events)
    assert ours.shapes == theirs.shapes and ours.usage == theirs.usage


@recorded(*FORCED)
@needs(tool_call_parser="mistral")
@pytest.mark.parametrize("name", FORCED)
async def test_the_streaming_parser_reads_a_text_as_recorded(name: str, server: Server) -> None:
    """Every `]` of plain text is lost beside tools, and unknown tools leak as text."""
    wanted = recording(name)
    theirs = heard(events(wanted["response"]["sse"]))
    ours = heard((await server.send(wanted["request"])).events)
    assert (ours.content, ours.calls, ours.finish) == (theirs.content, theirs.calls, theirs.finish)
    assert ours.shapes == theirs.shapes


@recorded("stream/error_bad_request")
async def test_a_wrong_request_is_a_400_before_the_stream(server: Server) -> None:
    wanted = recording("stream/error_bad_request")
    answer = await server.send(wanted["request"])
    assert (answer.status, answer.json) == (400, wanted["response"]["body"])


@recorded("queue/full_stream_3")
@needs(max_running_requests=1, max_queued_requests=1)
@disruptive
async def test_a_full_queue_is_a_200_with_an_error_in_the_stream(server: Server) -> None:
    wanted = recording("queue/full_stream_3")["response"]
    held = [await server.long_answer(fresh(name)) for name in ("first", "second")]
    answer = await server.ask(stream=True)
    assert answer.status == wanted["status"] == 200
    assert answer.events == events(wanted["sse"])
    await server.order("/abort_request", abort_all=True)
    await asyncio.gather(*held)


@recorded("kv_pool/prompt_over_pool_stream")
@needs(max_total_tokens=1500)
async def test_a_prompt_larger_than_the_pool_is_a_200_too(server: Server) -> None:
    wanted = recording("kv_pool/prompt_over_pool_stream")["response"]
    answer = await server.ask("word " * 3000, max_tokens=1, stream=True)
    assert answer.status == wanted["status"] == 200
    [ours], [theirs] = answer.events, events(wanted["sse"])
    assert {**ours["error"], "message": ""} == {**theirs["error"], "message": ""}


@recorded("cancel/abort_stream", "cancel/abort_waiting_stream")
async def test_an_aborted_stream_ends_with_abort(server: Server) -> None:
    theirs = heard(events(recording("cancel/abort_stream")["exchanges"][0]["response"]["sse"]))
    rid = fresh("stream")
    running = await server.long_answer(rid, stream=True)
    await server.order("/abort_request", rid=rid)
    ours = heard((await running).events)
    assert ours.finish == theirs.finish == "abort"


@recorded("cancel/client_disconnect")
async def test_the_lost_client_of_a_running_stream_is_noticed_at_once(server: Server) -> None:
    measured = recording("cancel/client_disconnect")["measured"]["stream_closed_after_6_reads"]
    assert all(one["gone_after_s"] < 0.1 for one in measured)
    rid = fresh("left")
    running = await server.long_answer(rid, stream=True)
    begun = time.monotonic()
    running.cancel()
    await server.freed(rid, within_s=10)
    assert time.monotonic() - begun < 1.0
