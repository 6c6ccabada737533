"""The process that evaluates rules: reads requests, one JSON object a line, and answers each in a line.

Started by `edges/rules.py`, by path and isolated (`python -I`), so that it loads CEL and nothing of the
operator. It bounds itself: what uses more processor time than its request allows ends the process,
by a signal that needs no help of Python's (the CEL library holds the interpreter's lock while it
works), and so does what wants more memory.

A request is ``{"cpu_s", "rules": [expression, ...], "variables": {...} | null}``; without variables the
rules are checked and not evaluated. An answer is ``{"hit": index | null, "problems": {index: text}}``.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import cel

MEMORY_BYTES = 128 * 2**20
"""What rules may use beyond what the process has when it starts."""

_VARIABLES = frozenset({"tool", "args", "calls", "turn"})
_TYPES = frozenset(
    {"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"}
)
_FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "type", "dyn", "int", "uint"}
    | {"double", "string", "bytes", "duration", "timestamp", "getFullYear", "getMonth", "getDate"}
    | {"getDayOfYear", "getDayOfMonth", "getDayOfWeek", "getHours", "getMinutes", "getSeconds"}
    | {"getMilliseconds"}
)
"""Those of the CEL standard that the library has (0.10), as rules may use them."""
_WORD = re.compile(r"[A-Za-z_]\w*")
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
"""Names that a comprehension binds."""
_PATTERN = re.compile(
    r"""\.\s*matches\s*\(\s*([rR]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))\s*\)"""
)
_WHERE = re.compile(r"<input>:(\d+):(\d+): (.*)")
_REGEX_ERROR = re.compile(r"error: ([^.\n]*)\.?[^\n]*$")
_SHOWN = 200

CelError = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)
"""What the library raises for an expression that is wrong, or wrong for these values."""


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the first rule that says something says. Pure, but for the cache of compiled rules."""
    if request["variables"] is None:
        found = ((index, problem(text)) for index, text in enumerate(request["rules"]))
        return {"hit": None, "problems": {index: said for index, said in found if said}}
    try:
        context = cel.Context(_values(request["variables"]))
    except (*CelError, RecursionError) as error:
        return {"hit": None, "problems": {0: f"the arguments cannot be looked at: {_said(error)}"}}
    for index, text in enumerate(request["rules"]):
        try:
            value = compiled(text).execute(context)
        except CelError as error:
            return {"hit": None, "problems": {index: _said(error)}}
        if value is True:
            return {"hit": index, "problems": {}}
        if value is not False:
            said = f"it gives {type(value).__name__} where true or false is wanted"
            return {"hit": None, "problems": {index: said}}
    return {"hit": None, "problems": {}}


def problem(text: str) -> str | None:
    """What is wrong with an expression, whatever the call; None if nothing is."""
    try:
        program = compiled(text)
    except CelError as error:
        return _said(error)
    return next(_unknown(text, program), None)


@lru_cache(maxsize=256)
def compiled(text: str) -> cel.Program:
    """Raises one of CelError."""
    return cel.compile(text)


def _unknown(text: str, program: cel.Program) -> Iterator[str]:
    bound = set(_BOUND.findall(text))
    for name in program.variables():
        if _WORD.fullmatch(name) and name not in _VARIABLES | _TYPES | bound:
            yield f"there is no variable {name!r}; there are {', '.join(sorted(_VARIABLES))}"
    for name in program.functions():
        if _WORD.fullmatch(name) and name not in _FUNCTIONS:
            yield f"there is no function {name!r}; there are {', '.join(sorted(_FUNCTIONS))}"
    for pattern in _PATTERN.findall(text):
        try:
            cel.evaluate(f"''.matches({pattern})")
        except CelError as error:
            yield f"{pattern[:80]}: {_said(error)}"


def _values(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {**variables, "args": json.loads(variables["args"])}


def _said(error: BaseException) -> str:
    """An error in a line. A KeyError is a name that is not in a map."""
    if isinstance(error, KeyError):
        name = str(error.args[0]).strip("'")
        return f"there is no {name!r} (ask with has() before)"
    text = str(error)
    where = _WHERE.search(text)
    if where:
        text = f"at character {where[2]} of line {where[1]}: {where[3]}"
    elif "not a valid regex" in text:
        found = _REGEX_ERROR.search(text)
        text = f"a pattern is no regular expression: {found[1] if found else 'it is too large'}"
    else:
        text = text.split("\n")[0].split(". ")[0]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _bound_memory() -> None:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer until the requests end."""
    _bound_memory()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])
        found = answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
