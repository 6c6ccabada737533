"""What a model reply turned out to be.

A reply is judged once, before it is recorded; the verdict is a fact of the
turn. Only a reply in which every call is sound is run. Otherwise nothing of it
is, and the model is told what was wrong.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ratchet.core.keys import call_id, canonical, clean
from ratchet.core.records import Call, Reply, Verdict
from ratchet.core.replies import RawReply
from ratchet.core.sizes import cut
from ratchet.core.tools import FINISH, translate

MAX_CALLS = 32
"""Tool calls of one turn."""
MAX_ARGUMENTS = 64 * 1024
"""Bytes of all arguments of one turn, as UTF-8 of canonical JSON."""
MAX_TEXT = 48 * 1024
"""Bytes of text, and of reasoning, that a record keeps of one reply."""
MAX_RAW = 16 * 1024
MAX_WORD, MAX_MODEL = 64, 512
"""Characters of the server's finish reason and of the name by which it calls its model."""
MAX_NOTE = 2000
"""Bytes of what the model is told of a reply that could not be used."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Names of tools that are shown to the model again as calls; servers may refuse others."""
_MARKUP = ("[TOOL_CALLS", "<tool_call>")
"""How models spell calls. In the text of a reply it is a call that the server did not read: it has no
tool parser, or the parser left a second call there (both recorded of SGLang 0.5.23)."""

ArgumentCheck = Callable[[str, Mapping[str, Any]], str | None]
"""Tool name and arguments to a sentence that says what does not fit the schema, or None."""


def judge(
    raw: RawReply,
    *,
    task_uid: str,
    turn: int,
    attempt: int,
    endpoint: str,
    tools: tuple[str, ...],
    check: ArgumentCheck,
) -> Reply:
    """The reply as it will be recorded. Total: every reply gets a verdict."""
    calls, broken = _parse(raw, task_uid, turn)
    verdict, note = _verdict(raw, calls, broken, tools, check)
    keep = verdict.runs or verdict in (Verdict.UNKNOWN_TOOL, Verdict.MALFORMED)
    whole = not broken and all(_NAME.fullmatch(call.tool) for call in calls)
    return Reply(
        verdict=verdict,
        text=cut(raw.content, MAX_TEXT),
        note=cut(note, MAX_NOTE),
        reasoning=cut(raw.reasoning, MAX_TEXT),
        calls=calls if keep and whole else (),
        finish_reason=raw.finish_reason[:MAX_WORD],
        usage=raw.usage,
        model=raw.model[:MAX_MODEL],
        endpoint=endpoint,
        attempt=attempt,
        raw="" if (keep and whole) or not raw.calls else cut(_spell(raw), MAX_RAW),
    )


def _parse(raw: RawReply, task_uid: str, turn: int) -> tuple[tuple[Call, ...], str]:
    """The calls in today's words; and of the first whose arguments are no object, what is wrong."""
    calls = []
    for index, call in enumerate(raw.calls):
        which = f"the arguments of call {index} ({cut(call.name, 100)})"
        try:
            arguments = json.loads(
                call.arguments or "{}", parse_constant=_refuse, parse_float=_finite
            )
            if not isinstance(arguments, dict):
                return (), f"{which} are not a JSON object"
            name, arguments = translate(call.name, arguments)
            text = canonical(arguments)
            if clean(text) != text:
                return (), f"{which} hold half a character (a lone surrogate, as \\ud800 is one)"
        except ValueError as error:
            return (), f"{which} are not JSON: {error}"
        except RecursionError:
            return (), f"{which} are nested too deeply"
        calls.append(Call(index, call_id(task_uid, turn, index), clean(name), text))
    return tuple(calls), ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


def _finite(text: str) -> float:
    """A number that JSON can spell again, which Infinity (of 1e999) is not."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {cut(text, 100)} is too large")
    return number


def _verdict(
    raw: RawReply,
    calls: tuple[Call, ...],
    broken: str,
    tools: tuple[str, ...],
    check: ArgumentCheck,
) -> tuple[Verdict, str]:
    if raw.finish_reason == "content_filter":
        return Verdict.REFUSED, "The reply was withheld by a content filter."
    # A forced or long reply often ends with `length` although its calls are whole (recorded of
    # SGLang 0.5.23), so a cut only counts where it left something broken or nothing at all.
    truncated = raw.finish_reason == "length"
    if broken:
        if truncated:
            return Verdict.TRUNCATED, f"The reply was cut off at the token limit: {broken}."
        return Verdict.MALFORMED, f"Nothing was run: {broken}."
    if not calls:
        return _without_calls(raw, truncated, tools)
    if _unread_call(raw):
        return (Verdict.TRUNCATED if truncated else Verdict.MALFORMED), _unread_call(raw)
    if truncated and any(call.tool == FINISH.name for call in calls):
        # What was cut off behind it may have been work that is not done yet.
        note = "Nothing was run: the reply was cut off behind the call of finish. Call it alone."
        return Verdict.TRUNCATED, note
    if len(calls) > MAX_CALLS:
        note = f"Nothing was run: {len(calls)} calls in one reply, at most {MAX_CALLS} are allowed."
        return Verdict.TOO_LARGE, note
    size = sum(len(call.arguments.encode()) for call in calls)
    if size > MAX_ARGUMENTS:
        note = (
            f"Nothing was run: the arguments are {size} bytes, at most {MAX_ARGUMENTS} are allowed "
            "in one reply. Write large files piece by piece, each in a reply of its own."
        )
        return Verdict.TOO_LARGE, note
    return _check_calls(calls, tools, check)


def _without_calls(raw: RawReply, truncated: bool, tools: tuple[str, ...]) -> tuple[Verdict, str]:
    if truncated:
        return Verdict.TRUNCATED, "The reply was cut off at the token limit. Be shorter."
    if _unread_call(raw):
        return Verdict.MALFORMED, _unread_call(raw)
    if raw.finish_reason in ("tool_calls", "function_call"):
        return Verdict.MALFORMED, "Nothing was run: the reply ended to call a tool, and names none."
    if not raw.content.strip():
        # SGLang drops calls of unknown tools and calls whose JSON is broken without a word (recorded).
        note = (
            "The reply was empty. Call a tool: one of these, with arguments that are JSON, since "
            f"other calls may be dropped on their way: {', '.join(tools)}."
        )
        return Verdict.EMPTY, note
    return Verdict.TEXT, ""


def _unread_call(raw: RawReply) -> str:
    """What is wrong with a text that holds a call; empty if it holds none."""
    found = next((markup for markup in _MARKUP if markup in raw.content), "")
    return found and (
        f"Nothing was run: a call is part of the reply's text (it has {found!r}), where the model's "
        "server did not read it. Call each tool once, and write nothing else. If all replies are "
        "like this, the server needs the tool parser of its model."
    )


def _check_calls(
    calls: tuple[Call, ...], tools: tuple[str, ...], check: ArgumentCheck
) -> tuple[Verdict, str]:
    for call in calls:
        if call.tool not in tools:
            name = cut(call.tool, 100)
            note = f"Nothing was run: there is no tool {name!r}. The tools are {', '.join(tools)}."
            return Verdict.UNKNOWN_TOOL, note
        try:
            wrong = check(call.tool, json.loads(call.arguments))
        except RecursionError:
            wrong = "they are nested too deeply"
        if wrong:
            note = f"Nothing was run: the arguments of call {call.index} ({call.tool}) do not fit: {wrong}"
            return Verdict.MALFORMED, note
    finishes = [call for call in calls if call.tool == FINISH.name]
    if len(finishes) > 1:
        return Verdict.MALFORMED, "Nothing was run: finish may be called once."
    return (Verdict.FINISH if finishes else Verdict.CALLS), ""


def _spell(raw: RawReply) -> str:
    return canonical([{"name": c.name, "arguments": c.arguments} for c in raw.calls])
