"""A table of arguments that no tool takes, made from the tools' own schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.core.tools import CATALOGUE

GOOD: Mapping[str, dict[str, Any]] = {
    "bash": {"command": "true", "timeout": 5},
    "bash_output": {"wait": 0},
    "bash_stdin": {"text": "x"},
    "bash_kill": {"signal": "TERM"},
    "read_file": {"path": "file", "offset": 0, "limit": 1},
    "write_file": {"path": "file", "content": "x", "overwrite": True},
    "search_replace": {
        "path": "file",
        "content": "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE",
    },
    "grep": {"pattern": "x", "path": ".", "max_matches": 5, "use_default_ignore": True},
    "todo": {"action": "write", "todos": [{"id": "1", "content": "c"}]},
    "finish": {"summary": "done", "result": {"anything": [1]}},
}
"""Arguments that each tool takes, every kind of argument in them."""
FREE_OF_NUL = {("write_file", "content"), ("search_replace", "content"), ("bash_stdin", "text")}
"""Where a NUL is nothing wrong: what is written to a file or a terminal."""
MEGABYTE = 1024 * 1024

_ODD: Mapping[str, Any] = {
    "null": None,
    "true": True,
    "text": "word",
    "number": 1.5,
    "negative": -1,
    "list": ["x"],
    "object": {"x": 1},
    "huge": 10**30,
}
_FITS: Mapping[str, tuple[str, ...]] = {
    "string": ("text",),
    "integer": (),
    "number": ("number",),
    "boolean": ("true",),
    "array": (),
    "object": ("object",),
}
"""Odd values that a schema's type takes after all, or of which its bounds say more."""


@dataclass(frozen=True)
class Bad:
    """Arguments with one thing wrong. `kind`: type, missing, extra, NUL, surrogate, large."""

    tool: str
    kind: str
    about: str
    """The argument that is wrong: the model must be told its name."""
    value: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.tool}-{self.kind}-{self.about}-{self.value}"


def bad_arguments(tool: str) -> Iterator[Bad]:
    """All that is wrong in one argument of this tool, one by one."""
    schema, good = CATALOGUE[tool].parameters, GOOD[tool]
    yield Bad(tool, "extra", "more", "1", {**good, "more": 1})
    for name in schema["required"]:
        yield Bad(tool, "missing", name, "", {k: v for k, v in good.items() if k != name})
    for name, wanted in schema["properties"].items():
        for odd, value in _ODD.items():
            if odd not in _FITS[wanted["type"]] or "enum" in wanted:
                yield Bad(tool, "type", name, odd, {**good, name: value})
        if wanted["type"] == "string":
            yield from _bad_texts(tool, name, good)


def _bad_texts(tool: str, name: str, good: dict[str, Any]) -> Iterator[Bad]:
    if (tool, name) not in FREE_OF_NUL:
        yield Bad(tool, "NUL", name, "", {**good, name: "a\0b"})
    yield Bad(tool, "surrogate", name, "high", {**good, name: "a\ud83d"})
    yield Bad(tool, "surrogate", name, "low", {**good, name: "\udc80b"})
    yield Bad(tool, "large", name, "", {**good, name: "x" * MEGABYTE})


ALL = [bad for tool in CATALOGUE for bad in bad_arguments(tool)]
