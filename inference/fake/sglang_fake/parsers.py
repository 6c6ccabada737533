"""Tool calls out of the model's text, as SGLang's parsers find them in an answer that is not
streamed. Pure.

Recorded with texts forced upon a model (tests/fixtures/sglang/tools_forced_*): what a parser
cannot read is lost, and the answer is then a 200 without calls and often without text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sglang_fake.settings import ToolCallParser

_MARKER = "[TOOL_CALLS"
_ARRAY = "[TOOL_CALLS] ["
_COMPACT = re.compile(r"\[TOOL_CALLS\]?(?P<name>(?:(?!\[ARGS).)*)\[ARGS\]?\s*(?=[{\[])", re.S)
_HERMES = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.S)
_HERMES_MARKER = "<tool_call>\n"
_ESCAPES = {"n": "\n", "t": "\t"}


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """One call: the tool's name, and the arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What is left as content, and the calls."""

    content: str
    calls: tuple[ParsedCall, ...] = ()


def parse(
    parser: ToolCallParser, text: str, offered: Collection[str], forward_unknown: bool
) -> Parsed:
    """Content and calls of `text`. Calls of tools that are not `offered` are dropped, unless
    `forward_unknown`. A request that offers no tools is not parsed."""
    read = _PARSERS.get(parser)
    if read is None or not offered:
        return Parsed(text)
    content, found = read(text)
    kept = (call for call in found if forward_unknown or call.name in offered)
    return Parsed(content, tuple(kept))


def parse_stream(text: str, offered: Collection[str]) -> list[str | ParsedCall] | None:
    """Text and calls in order, as the streaming `mistral` parser passes them on: without `]` in
    plain text, with unknown tools as text, and with nothing of what it cannot read (recorded).
    None for the array form, which it tears apart in ways that are not played here."""
    if not offered:
        return [text]
    found: list[str | ParsedCall] = []
    while (at := text.find(_MARKER)) >= 0:
        found.append(text[:at].replace("]", ""))
        one = _COMPACT.match(text, at)
        end = _closed(text, one.end()) if one else None
        arguments = _json(text[one.end() : end]) if one and end is not None else None
        if one is None or arguments is None:
            return None if _ARRAY in text else found
        name = one["name"].strip()
        found.append(_call(name, arguments) if name in offered else text[at:end])
        text = text[end:]
    return [*found, text.replace("]", "")]


def _mistral(text: str) -> tuple[str, Iterable[ParsedCall]]:
    at = text.find(_MARKER)
    if at < 0:
        return text, ()
    before, rest = text[:at].strip(), text[at:]
    # Recorded: the array form is looked for in the whole rest, and read once.
    if _ARRAY in rest:
        return _array(before, rest)
    calls, left = _compact(rest)
    return (_joined(before, left), calls) if calls else (before, ())


def _array(before: str, rest: str) -> tuple[str, Iterable[ParsedCall]]:
    begin = rest.find(_ARRAY) + len(_ARRAY) - 1
    end = _closed(rest, begin)
    if end is None:
        return before, ()
    return _joined(before, rest[end:].strip()), _calls(rest[begin:end])


def _compact(rest: str) -> tuple[list[ParsedCall], str]:
    """Calls in a row, and what follows the last one. Stops at what it cannot read."""
    calls: list[ParsedCall] = []
    while found := _COMPACT.match(rest, max(0, rest.find(_MARKER))):
        name, end = found["name"].strip(), _closed(rest, found.end())
        arguments = _json(rest[found.end() : end]) if end is not None else None
        if arguments is None or not name:
            break
        calls.append(_call(name, arguments))
        rest = rest[end:].strip()
    return calls, rest


def _hermes(text: str) -> tuple[str, Iterable[ParsedCall]]:
    before, marker, _ = text.partition(_HERMES_MARKER)
    if not marker:
        return text, ()
    calls = (call for block in _HERMES.findall(text) for call in _calls(block))
    return before.strip(), calls


_PARSERS: dict[ToolCallParser, Callable[[str], tuple[str, Iterable[ParsedCall]]]] = {
    ToolCallParser.MISTRAL: _mistral,
    ToolCallParser.QWEN: _hermes,
}


def _calls(text: str) -> Iterator[ParsedCall]:
    """Calls of JSON text: an object with `name` and `arguments`, or a list of them."""
    found = _json(text)
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            # Recorded: arguments that are a string stay one; none at all are {}.
            yield _call(item["name"], item.get("parameters") or item.get("arguments", {}))


def _call(name: str, arguments: Any) -> ParsedCall:
    return ParsedCall(name, json.dumps(arguments, ensure_ascii=False))


def _json(text: str) -> Any:
    """The value; None where it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _closed(text: str, begin: int) -> int | None:
    """Where the bracket at `begin` is closed (exclusive); brackets in strings do not count."""
    opening = text[begin]
    closing = "}" if opening == "{" else "]"
    depth, in_string, escaped = 0, False, False
    for at in range(begin, len(text)):
        char = text[at]
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            in_string = not in_string
        elif not in_string and char in (opening, closing):
            depth += 1 if char == opening else -1
            if not depth:
                return at + 1
    return None


def _joined(before: str, after: str) -> str:
    return f"{before} {after}".strip() if after else before


def literal(pattern: str) -> str | None:
    """The only text that a regular expression without operators fits; None for any other.

    SGLang's `regex` field forces the model's text; tests force a parser's input with it."""
    found: list[str] = []
    chars = iter(pattern)
    for char in chars:
        if char == "\\":
            following = next(chars, "")
            if not following or (following.isalnum() and following not in _ESCAPES):
                return None
            found.append(_ESCAPES.get(following, following))
        elif char in "[](){}*+?|.^$":
            return None
        else:
            found.append(char)
    return "".join(found)
