"""What a model is told about arguments that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.core.tools import CATALOGUE
from ratchet.edges.schemas import check_arguments

FITS: dict[str, dict[str, Any]] = {
    "bash": {"command": "ls", "timeout": 5},
    "bash_output": {"wait": 0},
    "bash_stdin": {"key": "ctrl-d"},
    "bash_kill": {"signal": "INT"},
    "read_file": {"path": "a", "offset": 0, "limit": 1},
    "write_file": {"path": "a", "content": "", "overwrite": True},
    "search_replace": {"path": "a", "content": "x"},
    "grep": {"pattern": "x"},
    "todo": {"action": "write", "todos": [{"id": "1", "content": "c", "status": "pending"}]},
    "finish": {"summary": "done", "result": {"anything": [1]}},
}


def test_what_fits_needs_no_words() -> None:
    assert set(FITS) == set(CATALOGUE)
    for tool, arguments in FITS.items():
        assert check_arguments(tool, arguments) is None


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("bash", {}, "'command' is missing."),
        ("bash", {"command": ""}, "command is too short: at least 1."),
        ("bash", {"command": ["ls"]}, "command must be a string, not ['ls']."),
        ("bash", {"command": "ls", "timeout": 0}, "timeout must be at least 1, not 0."),
        ("bash_output", {"wait": 61}, "wait must be at most 60, not 61."),
        (
            "bash_kill",
            {"signal": "STOP"},
            "signal must be one of 'TERM', 'INT', 'KILL', 'HUP', not 'STOP'.",
        ),
        ("bash", {"command": "ls", "timeout": "5"}, "timeout must be an integer, not '5'."),
        (
            "bash",
            {"command": "ls", "cwd": "/"},
            "'cwd' is not known; known are: command, timeout.",
        ),
        ("todo", {"action": "drop"}, "action must be one of 'read', 'write', not 'drop'."),
        (
            "todo",
            {"action": "write", "todos": [{"content": "c"}]},
            "in todos.0: 'id' is missing.",
        ),
        (
            "todo",
            {"action": "write", "todos": [{"id": "1", "content": "c"}] * 101},
            "todos is too long: at most 100.",
        ),
        ("finish", {"summary": "s", "result": 1}, "result must be an object, not 1."),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    tool: str, arguments: dict[str, Any], says: str
) -> None:
    assert check_arguments(tool, arguments) == says


def test_a_sentence_does_not_repeat_a_long_value() -> None:
    said = check_arguments("bash", {"command": ["x" * 10_000]})
    assert said is not None and len(said) < 200
