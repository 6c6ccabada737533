"""The model's list of things to do: a fold over its own recorded calls."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ratchet.core.records import Call, Outcome, Result, Turn
from ratchet.core.sizes import cut
from ratchet.core.tools import TODO

Todo = dict[str, Any]
_SHOWN, _SHOWN_IDS = 100, 5
"""Bytes of an id, and ids, that a sentence repeats."""


def current(turns: Iterable[Turn], earlier: Iterable[tuple[Call, Result]]) -> list[Todo]:
    """The list after all recorded turns and the calls of the open one that have ended."""
    todos: list[Todo] = []
    recorded = ((call, turn.result(call.index)) for turn in turns for call in turn.reply.calls)
    for call, result in (*recorded, *earlier):
        if call.tool == TODO.name and result is not None and result.outcome is Outcome.OK:
            arguments = json.loads(call.arguments)
            if arguments["action"] == "write":
                todos = arguments.get("todos", [])
    return todos


def run(call: Call, key: str, before: list[Todo]) -> Result:
    """Perform a `todo` call. `before` is the list that it finds."""
    arguments = json.loads(call.arguments)
    if arguments["action"] == "read":
        return Result(call.index, key, Outcome.OK, _render(before))
    todos = arguments.get("todos")
    if todos is None:
        note = "Nothing was changed: write needs todos, the whole new list (empty to clear it)."
        return Result(call.index, key, Outcome.FAILED, note)
    ids = [todo["id"] for todo in todos]
    doubled = sorted({i for i in ids if ids.count(i) > 1})
    if doubled:
        shown = ", ".join(cut(i, _SHOWN) for i in doubled[:_SHOWN_IDS])
        note = f"Nothing was changed: each id may occur once, and these occur more: {shown}."
        return Result(call.index, key, Outcome.FAILED, note)
    return Result(call.index, key, Outcome.OK, _render(todos))


def _render(todos: list[Todo]) -> str:
    if not todos:
        return "The list is empty."
    return "\n".join(
        f"[{todo.get('status', 'pending')}] {todo['id']}: {todo['content']}"
        f" ({todo.get('priority', 'medium')})"
        for todo in todos
    )
