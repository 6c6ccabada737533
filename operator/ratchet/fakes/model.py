"""A model that plays a script, in process."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.core.replies import ModelFailure, RawCall, RawReply, Usage
from ratchet.ports import ModelRequest

Answer = RawReply | ModelFailure
GONE = re.compile(r"Turns 1 to (\d+) of this task are no longer shown")
Play = Callable[[int, list[dict[str, Any]]], Answer]
"""Number of the turn asked for (from 1) and the messages, to the answer."""


def calls(*wanted: tuple[str, Mapping[str, Any]], text: str = "", tokens: int = 10) -> RawReply:
    """A reply that asks for tool calls."""
    raw = tuple(RawCall(name, json.dumps(arguments)) for name, arguments in wanted)
    return RawReply(text, "", raw, "tool_calls", Usage(tokens, 0, 1, 0), "fake")


def says(text: str) -> RawReply:
    """A reply of text alone."""
    return RawReply(text, "", (), "stop", Usage(10, 0, 1, 0), "fake")


def script(*answers: Answer) -> Play:
    """Play one answer a turn; the last one again and again."""

    def play(turn: int, messages: Sequence[dict[str, Any]]) -> Answer:
        return answers[min(turn, len(answers)) - 1]

    return play


@dataclass(slots=True)
class FakeModel:
    """Answers as a pure function of the request, and remembers what it was asked."""

    play: Play
    delay_s: float = 0.0
    failures: list[ModelFailure] = field(default_factory=list)
    """Answers to give first, one for each request, before the script goes on."""
    down: dict[str, ModelFailure] = field(default_factory=dict)
    """By endpoint: what it says to every request as long as it is in here."""
    seen: list[ModelRequest] = field(default_factory=list)
    aborted: int = 0

    async def ask(self, request: ModelRequest) -> Answer:
        self.seen.append(request)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        if self.failures:
            return self.failures.pop(0)
        if request.config.endpoint in self.down:
            return self.down[request.config.endpoint]
        messages = json.loads(request.body)["messages"]
        strict(messages)
        gone = GONE.search(request.body)
        told = sum(message["role"] == "assistant" for message in messages)
        turn = 1 + told + (int(gone[1]) if gone else 0)
        return self.play(turn, messages)


def strict(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise AssertionError where a history has a hole. Stricter than SGLang 0.5.23, which accepts them."""
    open_calls: list[str] = []
    seen: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in open_calls, "a tool message answers no open call"
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, f"calls without an answer: {open_calls}"
        for call in message.get("tool_calls", ()):
            assert call["id"] not in seen, f"tool-call id {call['id']} occurs twice"
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            seen.add(call["id"])
            open_calls.append(call["id"])
    assert not open_calls, f"calls without an answer: {open_calls}"
