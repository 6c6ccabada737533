"""The arguments of tool calls against the tools' schemas: an `ArgumentCheck` for `core.verdict`.

The model reads what this says and mends its call by it, so it is one sentence about one thing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from ratchet.core.tools import CATALOGUE

SHOWN = 80
"""Characters of a value that a sentence repeats."""
MOST = 2**53
"""Beyond it JSON's numbers are not exact any more (RFC 8259, section 6)."""

_MAY_HOLD_NUL = {("write_file", "content"), ("search_replace", "content"), ("bash_stdin", "text")}
"""Tool and argument: bytes of a file or of a terminal. No path, command or name can hold one."""

_VALIDATORS = {name: Draft202012Validator(tool.parameters) for name, tool in CATALOGUE.items()}


def check_arguments(tool: str, arguments: Mapping[str, Any]) -> str | None:
    """What does not fit in the arguments of a tool of the catalogue; None if all fits.

    Raises KeyError for a tool that is not in the catalogue.
    """
    error = best_match(_VALIDATORS[tool].iter_errors(arguments))
    if error is not None:
        return _sentence(error)
    return next(_unusable(tool, arguments), None)


def _unusable(tool: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """What a schema does not say well. Only in what all tools read: the data of `finish` is free."""
    for name, value in arguments.items():
        if isinstance(value, str) and "\0" in value and (tool, name) not in _MAY_HOLD_NUL:
            yield f"{name} holds a NUL as its character {value.index(chr(0)) + 1}: leave it out."
        if isinstance(value, int | float) and value > MOST:
            yield f"{name} must be at most {MOST}, not {_show(value)}."


def _sentence(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    wanted: Any = error.validator_value
    value: Any = error.instance
    schema: Any = error.schema
    match str(error.validator):
        case "required":
            missing = [name for name in wanted if name not in value]
            return f"{_in(where)}{missing[0]!r} is missing."
        case "additionalProperties":
            known = list(schema.get("properties", {}))
            extra = [name for name in value if name not in known]
            names = ", ".join(known) or "none at all"
            return f"{_in(where)}{_show(extra[0])} is not known; known are: {names}."
        case "type":
            what = where or "the whole"
            advice = ": leave it out where there is none" if value is None else ""
            return f"{what} must be {_a(wanted)}, not {_show(value)}{advice}."
        case "enum":
            allowed = ", ".join(map(repr, wanted))
            return f"{where} must be one of {allowed}, not {_show(value)}."
        case "minLength" | "minItems":
            return f"{where} is too short: at least {wanted}."
        case "maxLength" | "maxItems":
            return f"{where} is too long: at most {wanted}."
        case "minimum":
            return f"{where} must be at least {wanted}, not {_show(value)}."
        case "maximum":
            return f"{where} must be at most {wanted}, not {_show(value)}."
        case _:
            return f"{_in(where)}{error.message[:200]}."


def _in(where: str) -> str:
    return f"in {where}: " if where else ""


def _a(kind: Any) -> str:
    kinds = [kind] if isinstance(kind, str) else list(kind)
    return " or ".join(f"{'an' if k[0] in 'aio' else 'a'} {k}" for k in kinds)


def _show(value: Any) -> str:
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
