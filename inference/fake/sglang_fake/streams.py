"""Answers as server-sent events, as recorded of SGLang 0.5.23. Pure.

The fake sends the whole stream when the model's time is over; SGLang sends each token when it is
there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sglang_fake.said import Said
from sglang_fake.wire import END_TOKEN, Refused, Tokens, WireCall, usage

DONE = "data: [DONE]\n\n"
_WORDS = re.compile(r"\s*\S+|\s+")
Json = dict[str, Any]


def events(
    *, rid: str, created: int, model: str, said: Said, tokens: Tokens, parsed: bool, usage_too: bool
) -> list[str]:
    """The events of one answer. `parsed`: the request offers tools to a server with a parser,
    which gives chunks two more fields. `usage_too`: stream_options.include_usage."""
    head: Json = {"id": rid, "object": "chat.completion.chunk", "created": created, "model": model}

    def chunk(delta: Json, finish: str | None = None, more: Json | None = None) -> str:
        # Recorded: also after tool calls the stream, unlike the whole answer, has a stop token.
        stop = END_TOKEN if finish in ("stop", "tool_calls") else None
        choice = {"index": 0, "delta": delta, "logprobs": None}
        choice |= {"finish_reason": finish, "matched_stop": stop}
        return _event({**head, "choices": [choice], **(more or {})})

    found = [chunk({"reasoning_content": None, "role": "assistant", "content": ""})]
    if said.reasoning:  # not recorded: the model had no reasoning parser
        found.append(chunk({"reasoning_content": said.reasoning}))
    more: Json | None = {"usage": None} if parsed else None
    found += [chunk(delta, more=more) for delta in _deltas(said, parsed)]
    found.append(chunk({"reasoning_content": None}, said.finish_reason))
    if usage_too:
        found.append(_event({**head, "choices": [], "usage": usage(tokens)}))
    return [*found, DONE]


def _deltas(said: Said, parsed: bool) -> Iterator[Json]:
    number = 0
    for piece in said.pieces or ((said.content or ""), *said.calls):
        if isinstance(piece, WireCall):
            yield from _call_deltas(number, piece)
            number += 1
            continue
        for word in _WORDS.findall(piece):
            if parsed:
                yield {"role": None, "content": word, "reasoning_content": None}
            else:
                yield {"reasoning_content": None, "content": word}


def _call_deltas(number: int, call: WireCall) -> Iterator[Json]:
    for call_id, name, arguments in ((call.id, call.name, ""), (None, None, call.arguments)):
        function = {"name": name, "arguments": arguments}
        one = {"id": call_id, "index": number, "type": "function", "function": function}
        yield {"role": None, "content": None, "reasoning_content": None, "tool_calls": [one]}


def refusal_events(refused: Refused) -> list[str]:
    """An error in the middle of a stream, which has already begun with a 200."""
    assert isinstance(refused.body, dict)
    kind = {400: "BAD_REQUEST", 503: "SERVICE_UNAVAILABLE"}[refused.status]
    error = {"object": "error", "message": refused.body["message"], "type": kind}
    body = {"error": {**error, "param": None, "code": refused.status}}
    return [f"data: {json.dumps(body)}\n\n", DONE]


def _event(body: Json) -> str:
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"
