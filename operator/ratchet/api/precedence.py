"""Which of several places says what a field is: the first that says anything."""

from __future__ import annotations

from typing import TypeVar

_T = TypeVar("_T")


def first(*values: _T | None) -> _T | None:
    """The first value that is given at all; 0, false and empty lists are given."""
    return next((value for value in values if value is not None), None)


def first_or(default: _T, *values: _T | None) -> _T:
    """The first value that is given at all, else ``default``."""
    return next((value for value in values if value is not None), default)
