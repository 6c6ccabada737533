"""What a turn of the script says, ready to be sent: placeholders filled in, raw text parsed. Pure."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from sglang_fake.parsers import literal, parse, parse_stream
from sglang_fake.script import Reply, UsageNumbers
from sglang_fake.settings import Settings, ToolCallParser
from sglang_fake.wire import WireCall

# A forced text has no tokenizer here: about as many letters a token as the recorded model wrote
# under a regular expression.
_LETTERS_A_TOKEN = 2.2


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of the model, as it goes out. `pieces`: the order in a stream, where a parser
    made it; else content and then calls. `text`: what a parser read it from."""

    content: str | None
    reasoning: str | None
    calls: tuple[WireCall, ...]
    finish_reason: str
    usage: UsageNumbers = field(default_factory=UsageNumbers)
    pieces: tuple[str | WireCall, ...] = ()
    text: str | None = None


def say(reply: Reply, number: int, key: str, offered: Collection[str], settings: Settings) -> Said:
    """The reply for turn `number` of the task `key`. Tools that are not offered are dropped, as
    SGLang drops them, unless the settings forward them."""

    def put(text: str, escape: bool = False) -> str:
        if not reply.varies:
            return text
        filled = json.dumps(key)[1:-1] if escape else key
        return text.replace("{turn}", str(number)).replace("{key}", filled)

    if reply.text is not None:
        return _read(put(reply.text), reply, offered, settings)
    calls = tuple(
        _wire(put(name), put(arguments, escape=True), call_id)
        for name, arguments, call_id in reply.written_calls
        if settings.forward_unknown_tools or put(name) in offered
    )
    return Said(
        content=put(reply.content) if reply.content else reply.content,
        reasoning=put(reply.reasoning_content) if reply.reasoning_content else None,
        calls=calls,
        finish_reason=reply.finish_reason or ("tool_calls" if calls else "stop"),
        usage=reply.usage,
    )


def forced(
    pattern: object, most_tokens: int | None, offered: Collection[str], settings: Settings
) -> Said | None:
    """What a model says whose text is forced by SGLang's `regex` field, cut at `most_tokens`.
    None where the field is missing or leaves a choice, which only a model could make."""
    text = literal(pattern) if isinstance(pattern, str) else None
    if text is None:
        return None
    tokens = math.ceil(len(text) / _LETTERS_A_TOKEN)
    cut = most_tokens is not None and tokens > most_tokens
    if cut and most_tokens is not None:
        text, tokens = text[: int(most_tokens * _LETTERS_A_TOKEN)], most_tokens
    usage = UsageNumbers(completion_tokens=tokens)
    reply = Reply(text=text, finish_reason="length" if cut else None, usage=usage)
    return _read(text, reply, offered, settings)


def _read(text: str, reply: Reply, offered: Collection[str], settings: Settings) -> Said:
    """The text as the parser makes content and calls of it."""
    found = parse(settings.tool_call_parser, text, offered, settings.forward_unknown_tools)
    calls = tuple(_wire(call.name, call.arguments, None) for call in found.calls)
    finish = reply.finish_reason or ("tool_calls" if calls else "stop")
    return Said(found.content, reply.reasoning_content, calls, finish, reply.usage, text=text)


def streamed(said: Said, offered: Collection[str], settings: Settings) -> Said | None:
    """The same answer as the streaming parser makes it of the text; None where that is not played."""
    text = said.text
    if text is None:
        return said
    if not offered or settings.tool_call_parser is ToolCallParser.NONE:
        return replace(said, content=text, calls=())
    if settings.tool_call_parser is not ToolCallParser.MISTRAL:
        return said if not said.calls and "<tool_call>" not in text else None
    found = parse_stream(text, offered)
    if found is None:
        return None
    pieces = tuple(
        piece if isinstance(piece, str) else _wire(piece.name, piece.arguments, None)
        for piece in found
    )
    calls = tuple(piece for piece in pieces if isinstance(piece, WireCall))
    finish = said.finish_reason
    if finish in ("stop", "tool_calls"):
        finish = "tool_calls" if calls else "stop"
    content = "".join(piece for piece in pieces if isinstance(piece, str))
    return replace(said, content=content, calls=calls, finish_reason=finish, pieces=pieces)


def _wire(name: str, arguments: str, call_id: str | None) -> WireCall:
    return WireCall(call_id or f"call_{uuid.uuid4().hex[:24]}", name, arguments)
