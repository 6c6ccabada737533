"""The tools that a model is offered: one schema each, and what repeating a call would mean.

The schemas are the one source for what the model is told and for what its
arguments are checked against. They follow the names of Mistral Vibe's tools up
to 2.13 (read_file, search_replace, ...), and accept the later `read` and `edit`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Schema = Mapping[str, Any]


class Effect(StrEnum):
    """What repeating a call of unknown outcome would mean."""

    PURE = "pure"
    """Nothing."""
    IDEMPOTENT = "idempotent"
    """The same state again."""
    CHECKED = "checked"
    """Whether it happened can be seen, so look first."""
    ONCE = "once"
    """Something else: it must never be repeated unasked."""


class Home(StrEnum):
    """Where a tool runs."""

    SANDBOX = "sandbox"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of the catalogue."""

    name: str
    description: str
    parameters: Schema
    effect: Effect
    home: Home = Home.SANDBOX

    def for_model(self) -> dict[str, Any]:
        """The tool as OpenAI's chat completions want it."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": self.parameters,
            },
        }


def _object(required: list[str], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _whole(description: str, minimum: int, **more: Any) -> Schema:
    return {"type": "integer", "minimum": minimum, "description": description, **more}


_PATH = _text("Path of a file, absolute or relative to the workspace.", minLength=1)

BASH = Tool(
    "bash",
    "Run a command in a bash that lives as long as the task: the directory, variables, functions, "
    "aliases and options stay from call to call. A command that takes longer than `timeout` is left "
    "running and its output so far returned: then use bash_output, bash_stdin or bash_kill; until "
    "it has ended, no other command is run. Servers belong into the background (&), with their "
    "output in a file. Output beyond 30,000 bytes is cut in the middle and kept in a file that the "
    "result names.",
    _object(
        ["command"],
        command=_text("The command, of one or many lines.", minLength=1),
        timeout=_whole(
            "Seconds to wait for its end. Default 30. At the hard limit of the sandbox the command "
            "and all that the shell has started are killed, however it is waited for.",
            1,
        ),
    ),
    Effect.ONCE,
)
BASH_OUTPUT = Tool(
    "bash_output",
    "Get what a command that was left running has written since it was last asked, and its end if "
    "it has ended.",
    _object(
        [],
        wait=_whole("Seconds to wait for its end. Default 10.", 0, maximum=60),
    ),
    Effect.PURE,
)
BASH_STDIN = Tool(
    "bash_stdin",
    "Type into a command that was left running. Give either `text` or `key`. Returns what it has "
    "written since.",
    _object(
        [],
        text=_text("What to type; a line needs its \\n at the end.", minLength=1),
        key={
            "type": "string",
            "enum": ["ctrl-c", "ctrl-d", "ctrl-z", "enter"],
            "description": "ctrl-c interrupts, ctrl-d ends the input, ctrl-z stops the command or "
            "lets a stopped one go on.",
        },
    ),
    Effect.ONCE,
)
BASH_KILL = Tool(
    "bash_kill",
    "End a command that was left running. KILL ends everything that the shell has started as well.",
    _object(
        [],
        signal={
            "type": "string",
            "enum": ["TERM", "INT", "KILL", "HUP"],
            "description": "The signal to send. Default TERM.",
        },
    ),
    Effect.ONCE,
)
READ_FILE = Tool(
    "read_file",
    "Read a text file with line numbers. What AGENTS.md says in its folder or above is added once.",
    _object(
        ["path"],
        path=_PATH,
        offset=_whole("Lines to leave out at the start. Default 0.", 0),
        limit=_whole("Lines to read at most. Default 2000.", 1),
    ),
    Effect.PURE,
)
WRITE_FILE = Tool(
    "write_file",
    "Write a file of the workspace as a whole, with the folders on its way. A file that is there "
    "is only replaced with overwrite.",
    _object(
        ["path", "content"],
        path=_PATH,
        content=_text("The whole new content."),
        overwrite={
            "type": "boolean",
            "description": "Replace a file that is there. Default false.",
        },
    ),
    Effect.IDEMPOTENT,
)
SEARCH_REPLACE = Tool(
    "search_replace",
    "Change parts of a file of the workspace. `content` holds one or more blocks of the form\n"
    "<<<<<<< SEARCH\nold lines\n=======\nnew lines\n>>>>>>> REPLACE\n"
    "Each SEARCH text must occur in the file exactly once, spaces included. Either all blocks are "
    "applied or none. Where the text holds such marker lines, make the block's own ones longer, "
    "all three alike.",
    _object(
        ["path", "content"],
        path=_PATH,
        content=_text("The SEARCH/REPLACE blocks.", minLength=1),
    ),
    Effect.CHECKED,
)
GREP = Tool(
    "grep",
    "Search files for a regular expression (ripgrep). Ignored files are left out by default.",
    _object(
        ["pattern"],
        pattern=_text("The regular expression.", minLength=1),
        path=_text('File or folder to search. Default ".", the workspace.', minLength=1),
        max_matches=_whole("Matches to return at most. Default 100.", 1),
        use_default_ignore={
            "type": "boolean",
            "description": "Leave out what .gitignore and the like name. Default true.",
        },
    ),
    Effect.PURE,
)
TODO = Tool(
    "todo",
    "Keep a list of what is to be done. `write` replaces the whole list, `read` returns it.",
    _object(
        ["action"],
        action={"type": "string", "enum": ["read", "write"], "description": "What to do."},
        todos={
            "type": "array",
            "maxItems": 100,
            "description": "The new list, for write.",
            "items": _object(
                ["id", "content"],
                id=_text("A name for the entry, unique in the list.", minLength=1),
                content=_text("What is to be done."),
                status={
                    "type": "string",
                    "enum": ["pending", "in_progress", "completed", "cancelled"],
                    "description": "Default pending.",
                },
                priority={
                    "type": "string",
                    "enum": ["low", "medium", "high"],
                    "description": "Default medium.",
                },
            ),
        },
    ),
    Effect.PURE,
    Home.OPERATOR,
)
FINISH = Tool(
    "finish",
    "End the task. Call it once the goal is reached, or when it cannot be reached, and say so. "
    "The state of the workspace becomes the result.",
    _object(
        ["summary"],
        summary=_text("What was done and what is left, for the person who reads it.", minLength=1),
        result={
            "type": "object",
            "description": "The answer as data, where the goal asks for one.",
            "additionalProperties": True,
        },
    ),
    Effect.PURE,
    Home.OPERATOR,
)

CATALOGUE: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        BASH, BASH_OUTPUT, BASH_STDIN, BASH_KILL,
        READ_FILE, WRITE_FILE, SEARCH_REPLACE, GREP, TODO, FINISH,
    )
}  # fmt: skip

TOOLS_VERSION = 2
"""Version of what the model is told of the tools; 1 is in `tools_v1`."""

_COMES_WITH: Mapping[str, str] = {
    tool.name: BASH.name for tool in (BASH_OUTPUT, BASH_STDIN, BASH_KILL)
}
"""Tools that are of no use without another one; that one's name stands for them all."""


def enabled_tools(enabled: tuple[str, ...], disabled: tuple[str, ...]) -> tuple[str, ...]:
    """Names in catalogue order. No `enabled` means all; `finish` is always there, and `bash` brings
    those that poll, feed and end its commands."""
    names = ((name, _COMES_WITH.get(name, name)) for name in CATALOGUE)
    return tuple(
        name
        for name, group in names
        if name == FINISH.name or ((not enabled or group in enabled) and group not in disabled)
    )


def translate(name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The call in today's words, where a model used other generations' names.

    `read` counts lines from 1 and calls the path `file_path`; `edit` is one
    SEARCH/REPLACE block. `replace_all` has no counterpart and stays, to be refused, and so does
    what is of a wrong type.
    """
    call = dict(arguments)
    if "file_path" in call and "path" not in call:
        call["path"] = call.pop("file_path")
    if name == "read":
        offset = call.get("offset")
        if isinstance(offset, int | float) and not isinstance(offset, bool):
            call["offset"] = max(0, offset - 1)
        return READ_FILE.name, call
    if name == "edit":
        old, new = call.get("old_string"), call.get("new_string")
        if isinstance(old, str) and isinstance(new, str) and "content" not in call:
            del call["old_string"], call["new_string"]
            call["content"] = _block(old, new)
        if call.get("replace_all") is False:
            del call["replace_all"]
        return SEARCH_REPLACE.name, call
    return name, call


_LIKE_MARKERS = re.compile("^(?:<+|=+|>+)", re.MULTILINE)


def _block(old: str, new: str) -> str:
    """The block with markers longer than anything in the text that looks like one."""
    runs = _LIKE_MARKERS.findall(old) + _LIKE_MARKERS.findall(new)
    width = max([7, *(len(run) + 1 for run in runs)])
    return f"{'<' * width} SEARCH\n{old}\n{'=' * width}\n{new}\n{'>' * width} REPLACE\n"
