"""Checks of a chat request: first SGLang's own, as recorded, then the strict ones. Pure.

The strict checks are NOT SGLang's: 0.5.23 was recorded to accept an unanswered call, a wrong,
missing or doubled tool_call_id and arguments that are JSON but no object. They are here so that
a hole in a history cannot pass a test unseen.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from sglang_fake.script import Asked
from sglang_fake.wire import Refused, bad_request, error_body, invalid

_ROLES = ("system", "user", "assistant", "tool", "function", "developer", "latest_reminder", "root")
_KNOWN_ROLES = frozenset(_ROLES)
_NO_LONGER_SHOWN = re.compile(r"Turns 1 to (\d+) of this task are no longer shown")
IMAGE_TOKENS = 1024
"""What an image takes here, whatever its size."""
Body = dict[str, Any]


def parse_body(raw: bytes, content_type: str) -> Body:
    """The request's JSON object. Raises Refused as SGLang answers."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        problem = {
            "loc": ["header", "content-type"],
            "msg": "Unsupported Media Type: Only 'application/json' is allowed",
            "type": "value_error",
        }
        raise bad_request(f"1 validation error:\n  {problem} [{problem}]", "Bad Request")
    if not raw:
        raise invalid(_missing(("body",), None))
    try:
        body = _loads(raw)
    except (ValueError, RecursionError) as err:
        position = getattr(err, "pos", 0)
        raise invalid(
            {
                "type": "json_invalid",
                "loc": ("body", position),
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": str(err).partition(":")[0]},
            }
        ) from err
    if not isinstance(body, dict):
        # Recorded: a JSON array as body gives a plain-text 500.
        raise Refused(500, "Internal Server Error")
    return body


def _loads(raw: bytes) -> Any:
    """As json.loads, whose words for what is wrong are those of the recordings, in half the time."""
    try:
        return from_json(raw)
    except ValueError:
        return json.loads(raw)


def _missing(loc: tuple[str | int, ...], found: object) -> dict[str, Any]:
    return {"type": "missing", "loc": loc, "msg": "Field required", "input": found}


def check_body(body: Body, vision: bool = False) -> None:
    """SGLang's checks of fields and values. Raises Refused. `vision`: the model takes images."""
    _check_messages(body, ("text", "image_url") if vision else ("text",))
    _check_tools(body)
    _check_numbers(body)
    if body.get("n", 1) != 1:
        raise unsupported("n other than 1")
    model = body.get("model", "default")
    if isinstance(model, str) and ":" in model:
        raise bad_request(
            f"LoRA adapter '{model.partition(':')[2]}' was requested, but LoRA is not enabled. "
            "Please launch the server with --enable-lora flag and preload adapters using "
            "--lora-paths or /load_lora_adapter endpoint."
        )


def unsupported(what: str) -> Refused:
    """What SGLang can do and this fake cannot; the type says who speaks."""
    message = f"The fake SGLang does not support {what}."
    return Refused(400, error_body(400, message, "FakeUnsupported"))


def _check_messages(body: Body, kinds: tuple[str, ...]) -> None:
    if "messages" not in body:
        raise invalid(_missing(("body", "messages"), {**body, "tool_choice": "none"}))
    messages = body["messages"]
    if not isinstance(messages, list):
        msg = "Input should be a valid list"
        problem = {"type": "list_type", "loc": ("body", "messages"), "msg": msg}
        raise invalid({**problem, "input": messages})
    if not messages:
        raise bad_request("Messages cannot be empty.")
    for index, message in enumerate(messages):
        _check_message(index, message, kinds)


def _check_message(index: int, message: object, kinds: tuple[str, ...]) -> None:
    if not isinstance(message, dict) or not _known(message.get("role")):
        found = message.get("role") if isinstance(message, dict) else message
        msg = f"Value error, 'role' must be one of {_ROLES}."
        loc = ("body", "messages", index, "role")
        raise invalid({"type": "value_error", "loc": loc, "msg": msg, "input": found})
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in kinds:
            raise bad_request(
                f"Model only supports text input; received unsupported content type '{kind}'."
            )
    for call in message.get("tool_calls") or ():
        arguments = call.get("function", {}).get("arguments")
        if isinstance(arguments, str) and not _is_json(arguments):
            problem = "Assistant tool call function.arguments must be valid JSON."
            raise bad_request(problem, "BadRequest")


def _known(role: object) -> bool:
    return isinstance(role, str) and role in _KNOWN_ROLES


@lru_cache(maxsize=4096)  # every request of a task repeats its history
def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _check_tools(body: Body) -> None:
    tools = body.get("tools") or []
    for index, tool in enumerate(tools):
        function = tool.get("function", {}) if isinstance(tool, dict) else {}
        if "name" not in function:
            found = {**function, "key_order": list(function)}
            raise invalid(_missing(("body", "tools", index, "function", "name"), found))
    choice = body.get("tool_choice")
    if choice == "required" and not tools:
        raise bad_request("Tools cannot be empty if tool choice is set to required.")
    if isinstance(choice, dict):
        wanted = choice.get("function", {}).get("name")
        if wanted not in offered_tools(body):
            raise bad_request(f"Tool '{wanted}' not found in tools list.")


def _check_numbers(body: Body) -> None:
    limit = max_tokens(body)
    if limit is not None and not isinstance(limit, int):
        msg = "Input should be a valid integer, unable to parse string as an integer"
        problem = {"type": "int_parsing", "loc": ("body", "max_tokens"), "msg": msg}
        raise invalid({**problem, "input": limit})
    if limit is not None and limit < 0:
        raise bad_request(f"max_new_tokens must be at least 0, got {limit}.")
    heat = body.get("temperature")
    if isinstance(heat, int | float) and not (math.isfinite(heat) and heat >= 0):
        raise bad_request(f"temperature must be a non-negative finite number, got {float(heat)}.")
    top_p = body.get("top_p")
    if isinstance(top_p, int | float) and not 0 < top_p <= 1:
        raise bad_request(f"top_p must be in (0, 1], got {float(top_p)}.")


def max_tokens(body: Body) -> Any:
    """The bound on the answer, whichever of the two field names is used; None if there is none."""
    return body.get("max_completion_tokens", body.get("max_tokens"))


def streams(body: Body) -> bool:
    """Whether the answer is to be streamed."""
    return bool(body.get("stream"))


def wants_usage(body: Body) -> bool:
    """Whether a stream is to end with the usage."""
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def offered_tools(body: Body) -> tuple[str, ...]:
    """Names of the tools that the request offers."""
    return tuple(tool["function"]["name"] for tool in body.get("tools") or ())


def check_length(prompt: int, limit: int | None, context: int, pool: int) -> None:
    """Context and token pool, both in tokens. Raises Refused."""
    if prompt > context:
        raise bad_request(
            f"The input ({prompt} tokens) is longer than the model's context length "
            f"({context} tokens)."
        )
    if limit is not None and prompt + limit > context:
        raise bad_request(
            f"Requested token count exceeds the model's maximum context length of {context} "
            f"tokens. You requested a total of {prompt + limit} tokens: {prompt} tokens from the "
            f"input messages and {limit} tokens for the completion. Please reduce the number of "
            "tokens in the input messages or the completion to fit within the limit."
        )
    # Recorded: a pool of 1500 tokens admits 1494.
    if prompt > pool - 6:
        problem = (
            f"Input length ({prompt} tokens) exceeds the maximum allowed length ({pool - 6} "
            "tokens). Use a shorter input or enable --allow-auto-truncate."
        )
        raise Refused(400, error_body(400, problem), late=True)


def strict_problem(messages: list[Body]) -> str | None:
    """The first hole in the tool calls of a history, as a sentence; None if there is none.

    Stricter than SGLang: each call has its own id, each is answered exactly once and at once,
    and its arguments are an object.
    """
    known: set[str] = set()
    open_ids: dict[str, int] = {}
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            problem = _answer_problem(index, message.get("tool_call_id"), open_ids, known)
            if problem:
                return problem
            continue
        if open_ids:
            return _unanswered(open_ids)
        for call in message.get("tool_calls") or ():
            problem = _call_problem(index, call, known)
            if problem:
                return problem
            known.add(call["id"])
            open_ids[call["id"]] = index
    return _unanswered(open_ids) if open_ids else None


def _answer_problem(
    index: int, call_id: object, open_ids: dict[str, int], known: set[str]
) -> str | None:
    if isinstance(call_id, str) and open_ids.pop(call_id, None) is not None:
        return None
    if call_id in known:
        return f"message {index} answers tool call {call_id!r} a second time or too late"
    return f"message {index} answers tool call {call_id!r}, which no assistant message made"


def _call_problem(index: int, call: Body, known: set[str]) -> str | None:
    call_id = call.get("id")
    if not isinstance(call_id, str) or not call_id:
        return f"a tool call in message {index} has no id"
    if call_id in known:
        return f"tool call id {call_id!r} is used twice, the second time in message {index}"
    arguments = call.get("function", {}).get("arguments")
    # Text is known to be JSON here, so its first letter tells what it is.
    text_object = isinstance(arguments, str) and arguments.lstrip().startswith("{")
    if not (text_object or isinstance(arguments, dict)):
        return f"the arguments of tool call {call_id!r} in message {index} are not an object"
    return None


def _unanswered(open_ids: dict[str, int]) -> str:
    call_id, index = next(iter(open_ids.items()))
    return f"tool call {call_id!r} of message {index} is not answered before the next message"


def asked(body: Body, rid: str, routing_key: str) -> Asked:
    """What the choice of the turn depends on."""
    messages = body["messages"]
    replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    users = (text(m) for m in messages if m["role"] == "user")
    recent = messages[replies[-1] + 1 :] if replies else messages
    return Asked(
        model=str(body.get("model", "default")),
        rid=rid,
        routing_key=routing_key,
        first_user_text=next(users, ""),
        new_text="\n".join(text(message) for message in recent),
        turn=_left_out(messages) + len(replies) + 1,
        tools=offered_tools(body),
    )


def _left_out(messages: list[Body]) -> int:
    """Turns that the history does not show, which Ratchet says in the first user message."""
    first = next((text(m) for m in messages if m["role"] == "user"), "")
    said = _NO_LONGER_SHOWN.findall(first) if "no longer shown" in first else []
    return int(said[-1]) if said else 0


def prompt_tokens(body: Body, size: int) -> int:
    """An estimate for a request of so many bytes: four to a token, but for the data of images."""
    urls = [url for message in body["messages"] for url in _images(message.get("content"))]
    return (size - sum(map(len, urls))) // 4 + len(urls) * IMAGE_TOKENS


def _images(content: object) -> Iterator[str]:
    for part in content if isinstance(content, list) else ():
        if part.get("type") == "image_url":
            yield _url(part.get("image_url"))


def _url(given: object) -> str:
    return str(given.get("url", "")) if isinstance(given, dict) else ""


def text(message: Body) -> str:
    """A message's content as text; its parts of text are joined."""
    return "".join(_texts(message.get("content")))


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield str(part.get("text", ""))
