"""The script: which reply the fake gives to which request.

The turn to play is a pure function of the request (conversation by `match`, turn by the number
of assistant messages in the history), so neither side's restart changes what is played and two
tasks never mix. Only faults with `times` are counted, by the server, in memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FaultKind = Literal[
    "queue_full",
    "waiting_timeout",
    "running_timeout",
    "preempted",
    "context_too_long",
    "unauthorized",
    "model_not_found",
    "rate_limited",
    "internal",
    "router_no_workers",
    "router_lost_worker",
    "abort",
    "bad_json",
    "cut",
    "stall",
    "disconnect",
    "hang",
    "pause",
    "drain",
    "crash",
]
FinishReason = Literal["stop", "tool_calls", "length", "abort", "content_filter"]


class ScriptError(Exception):
    """The script is wrong or does not cover a request; the text says where and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Call(_Part):
    """One tool call of a reply."""

    name: str = Field(description="Tool name.", min_length=1)
    arguments: dict[str, Any] | str = Field(
        default_factory=dict, description="An object, or raw text that is passed on as it is."
    )
    id: str | None = Field(default=None, description="Default: a fresh one, as SGLang makes it.")

    @property
    def written(self) -> str:
        """The arguments as text."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, ensure_ascii=False)


class UsageNumbers(_Part):
    """Token counts that replace the fake's estimates."""

    prompt_tokens: int | None = Field(default=None, ge=0)
    cached_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)
    reasoning_tokens: int | None = Field(default=None, ge=0)


class Reply(_Part):
    """What the model says in one turn: content and calls, or the raw `text` that it writes, of
    which the server's tool parser makes them."""

    text: str | None = Field(default=None, description="Instead of content and tool_calls.")
    content: str | None = ""
    reasoning_content: str | None = None
    tool_calls: tuple[Call, ...] = ()
    finish_reason: FinishReason | None = Field(
        default=None, description="Default: tool_calls when there are calls, else stop."
    )
    usage: UsageNumbers = UsageNumbers()

    @model_validator(mode="after")
    def _text_or_parts(self) -> Self:
        if self.text is not None and (self.content or self.tool_calls):
            raise ValueError("give 'text', or 'content' and 'tool_calls'")
        return self

    @cached_property
    def written_calls(self) -> tuple[tuple[str, str, str | None], ...]:
        """Name, arguments as the text that goes over the wire, and id of each call."""
        return tuple((call.name, call.written, call.id) for call in self.tool_calls)

    @cached_property
    def varies(self) -> bool:
        """Whether there is a `{turn}` or `{key}` to fill in."""
        texts = [self.text, self.content, self.reasoning_content]
        texts += [text for name, written, _ in self.written_calls for text in (name, written)]
        whole = "\n".join(text or "" for text in texts)
        return "{turn}" in whole or "{key}" in whole


class Fault(_Part):
    """An error in place of a reply: a `kind` by name, or a `status` with a body of your own."""

    kind: FaultKind | None = None
    status: int | None = Field(default=None, ge=200, le=599)
    body: dict[str, Any] | str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    times: int | None = Field(
        default=None,
        ge=1,
        description="How often, per task and turn, before the reply is given. Default: once when "
        "the turn has a reply, else always.",
    )
    seconds: float | None = Field(
        default=None, gt=0, description="With kind pause: how long. Default: until continued."
    )

    @model_validator(mode="after")
    def _kind_or_status(self) -> Self:
        if (self.kind is None) == (self.status is None):
            raise ValueError("give exactly one of 'kind' and 'status'")
        if self.kind is not None and self.body is not None:
            raise ValueError("'body' goes with 'status', not with 'kind'")
        if self.seconds is not None and self.kind != "pause":
            raise ValueError("'seconds' goes with kind 'pause'")
        return self


class Expect(_Part):
    """What the request must look like; if it does not, the fake answers 400 and says why."""

    contains: tuple[str, ...] = Field(
        default=(), description="Texts that must occur after the last assistant message."
    )
    excludes: tuple[str, ...] = Field(
        default=(), description="Texts that must not occur after the last assistant message."
    )
    tools: tuple[str, ...] = Field(default=(), description="Tools that must be offered.")

    @model_validator(mode="before")
    @classmethod
    def _one_text_is_a_list(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: [v] if isinstance(v, str) else v for k, v in value.items()}


class Turn(_Part):
    """One model reply (or fault). `repeat` plays it that many turns in a row."""

    reply: Reply | None = None
    error: Fault | None = None
    delay_s: float | None = Field(
        default=None, ge=0, description="Time that the model takes, seconds. Default: --latency."
    )
    expect: Expect = Expect()
    repeat: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.reply is None and self.error is None:
            raise ValueError("a turn needs 'reply' or 'error'")
        if self.reply is None and self.error is not None and self.error.times is not None:
            raise ValueError("'error.times' needs a 'reply' for the time after")
        if self.reply is None and self.error is not None and self.error.kind in ("pause", "drain"):
            raise ValueError(f"'{self.error.kind}' needs a 'reply': the request is still answered")
        return self

    def faults(self) -> float:
        """How many requests of one task and turn meet the error before the reply is given."""
        if self.error is None:
            return 0
        if self.reply is None:
            return float("inf")
        return self.error.times or 1


class Match(_Part):
    """Which requests belong to a conversation; every given field must fit."""

    contains: str | None = Field(default=None, description="Text in the first user message.")
    routing_key: str | None = Field(default=None, description="Exact x-smg-routing-key header.")
    rid_prefix: str | None = None
    model: str | None = None


class Conversation(_Part):
    name: str | None = None
    match: Match = Match()
    turns: tuple[Turn, ...] = Field(min_length=1)
    loop: bool = Field(default=False, description="After the last turn begin with the first again.")


class Script(_Part):
    """All conversations; the first that matches a request is played."""

    conversations: tuple[Conversation, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request the choice of the turn depends on."""

    model: str
    rid: str
    routing_key: str
    first_user_text: str
    new_text: str
    turn: int
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A turn of the script; `number` counts from 1 over the whole conversation."""

    conversation: str
    number: int
    turn: Turn


def load_script(path: str | Path) -> Script:
    """Read a script file (YAML). Raises ScriptError that names the file and each wrong field."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ScriptError(f"cannot read the script {path}: {err}") from err
    return parse_script(text, str(path))


def parse_script(text: str, source: str = "script") -> Script:
    """Parse YAML text. Raises ScriptError that names `source` and each wrong field."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ScriptError(f"{source} is not YAML: {err}") from err
    return check_script(data, source)


def check_script(data: object, source: str = "script") -> Script:
    """Check a script that is given as plain data. Raises ScriptError."""
    try:
        return Script.model_validate(data)
    except ValidationError as err:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in err.errors()]
        message = f"{source} is not a script of the fake model:\n" + "\n".join(lines)
        raise ScriptError(f"{message}\nThe format is in inference/fake/README.md.") from err


def choose(script: Script, asked: Asked) -> Chosen:
    """The turn that answers a request. Raises ScriptError when the script has none."""
    for index, conversation in enumerate(script.conversations):
        if matches(conversation.match, asked):
            name = conversation.name or f"#{index + 1}"
            return Chosen(name, asked.turn, turn_at(conversation, name, asked.turn))
    raise ScriptError(
        "no conversation of the script matches this request (first user message begins "
        f"{asked.first_user_text[:80]!r}, routing key {asked.routing_key!r}). "
        "Add one, or one without 'match'."
    )


def matches(match: Match, asked: Asked) -> bool:
    """Whether every given field of `match` fits the request."""
    return (
        (match.contains is None or match.contains in asked.first_user_text)
        and (match.routing_key is None or match.routing_key == asked.routing_key)
        and (match.rid_prefix is None or asked.rid.startswith(match.rid_prefix))
        and (match.model is None or match.model == asked.model)
    )


def turn_at(conversation: Conversation, name: str, number: int) -> Turn:
    """Turn `number` (from 1), with repeats and the loop unrolled. Raises ScriptError."""
    length = sum(turn.repeat for turn in conversation.turns)
    position = number - 1
    if conversation.loop:
        position %= length
    for turn in conversation.turns:
        if position < turn.repeat:
            return turn
        position -= turn.repeat
    raise ScriptError(
        f"conversation {name} of the script has {length} turns, but the request asks for turn "
        f"{number}. Add turns, or 'loop: true'."
    )


def unmet(expect: Expect, asked: Asked) -> str | None:
    """The first expectation that the request does not meet, as a sentence; None if all are met."""
    for text in expect.contains:
        if text not in asked.new_text:
            return f"expected {text!r} after the last assistant message, found {_cut(asked)}"
    for text in expect.excludes:
        if text in asked.new_text:
            return f"did not expect {text!r} after the last assistant message"
    missing = sorted(set(expect.tools) - set(asked.tools))
    if missing:
        return f"expected the tools {missing} to be offered; offered are {sorted(asked.tools)}"
    return None


def _cut(asked: Asked) -> str:
    text = asked.new_text
    return repr(text if len(text) <= 600 else f"{text[:300]} ... {text[-300:]}")
