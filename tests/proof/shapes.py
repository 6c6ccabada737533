"""What the tasks of the real-process levels do: conversations of the fake model, by name.

A task plays the shape that its goal names. Each command with an effect leaves its key in the
outside ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sglang_fake import Script, check_script

Effect = Callable[[str], str]
"""Makes a bash command that leaves a text in the ledger (`Ledger.command`)."""
Turn = dict[str, Any]

FINISH: Turn = {"reply": {"tool_calls": [{"name": "finish", "arguments": {"summary": "done"}}]}}


def goal(shape: str) -> str:
    """The goal of a task that plays a shape."""
    return f"Play the shape {shape}."


def script(shapes: Mapping[str, tuple[Turn, ...]]) -> Script:
    """All shapes as one script."""
    conversations = [
        {"name": name, "match": {"contains": goal(name)}, "turns": list(turns)}
        for name, turns in shapes.items()
    ]
    return check_script({"conversations": conversations})


def bash(*commands: str, delay_s: float = 0.0) -> Turn:
    """A turn that runs commands, one call each."""
    calls = [{"name": "bash", "arguments": {"command": command}} for command in commands]
    return {"reply": {"tool_calls": calls}, "delay_s": delay_s}


def marks(effect: Effect, calls: int = 1, before: str = "", after: str = "") -> Turn:
    """A turn of commands that each leave their key."""
    parts = ([before, effect(f"{{key}}/{{turn}}/{index}"), after] for index in range(calls))
    return bash(*("; ".join(part for part in each if part) for each in parts))


def call(tool: str, **arguments: Any) -> Turn:
    """A turn of one call."""
    return {"reply": {"tool_calls": [{"name": tool, "arguments": arguments}]}}
