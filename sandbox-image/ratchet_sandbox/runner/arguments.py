"""The shape of a tool's arguments, checked again where they are used. Pure.

The operator has checked them against the tools' JSON schemas; this keeps a tool right whatever it
is handed, without a validator that would have to be shipped.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_SHOWN: Final = 60
"""Characters of a value that a sentence repeats."""
_NAME: Final = 200
MOST: Final = 2**53
"""Beyond it JSON's numbers are not exact any more (RFC 8259, section 6)."""


class BadArguments(Exception):
    """The arguments cannot be used; the message is a sentence that says what to change."""


class Kind(enum.Enum):
    """What a value must be; the value is its name in a sentence."""

    TEXT = "a string"
    LINE = "a string without NUL"
    WHOLE = "a whole number"
    NUMBER = "a number"
    FLAG = "true or false"


@dataclass(frozen=True, slots=True)
class Field:
    """One argument: its kind, whether it must be there, and how small it may be.

    `least` bounds a number, and the length of a text in characters.
    """

    kind: Kind
    required: bool = False
    least: int = 0


Shape = Mapping[str, Field]


def check(shape: Shape, arguments: Any) -> dict[str, Any]:
    """The arguments as the shape has them, whole numbers as int, null as if left out.

    Raises BadArguments.
    """
    if not isinstance(arguments, dict):
        raise BadArguments("the arguments must be an object")
    taken = {name: value for name, value in arguments.items() if value is not None}
    for name in taken:
        if name not in shape:
            known = ", ".join(shape) or "none at all"
            raise BadArguments(f"{show(name)} is not known; known are: {known}")
    for name, field in shape.items():
        if name in taken:
            taken[name] = _value(name, field, taken[name])
        elif field.required:
            raise BadArguments(f"{name!r} is missing")
    return taken


def show(value: Any) -> str:
    """A value in a sentence: short, printable, and without lone surrogates."""
    try:
        text = ascii(value[: 2 * _SHOWN]) if isinstance(value, str) else ascii(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def named(path: str) -> str:
    """A path at the start of a sentence: as it is if that can be read."""
    return path if path.isprintable() and len(path) <= _NAME else show(path)


def _value(name: str, field: Field, value: Any) -> Any:
    if field.kind in (Kind.TEXT, Kind.LINE):
        return _text(name, field, value)
    if field.kind is Kind.FLAG:
        return value if isinstance(value, bool) else _refuse(name, field, value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    wanted = int if field.kind is Kind.WHOLE else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        _refuse(name, field, value)
    if not field.least <= value <= MOST:  # not a number is in no range
        raise BadArguments(f"{name} must be from {field.least} to {MOST}, not {show(value)}")
    return value


def _text(name: str, field: Field, value: Any) -> str:
    if not isinstance(value, str):
        _refuse(name, field, value)
    if len(value) < field.least:
        raise BadArguments(f"{name} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadArguments(
            f"{name} holds half a character ({show(value[error.start])}, a lone surrogate) "
            f"as its character {error.start + 1}: write the whole character or leave it out"
        ) from None
    if field.kind is Kind.LINE and "\0" in value:
        at = value.index("\0") + 1
        raise BadArguments(f"{name} holds a NUL as its character {at}: leave it out")
    return str(value)


def _refuse(name: str, field: Field, value: Any) -> Any:
    raise BadArguments(f"{name} must be {field.kind.value}, not {show(value)}")
