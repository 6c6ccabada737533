"""`--rewrite-golden` writes golden files anew instead of comparing them; review them like code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

AssertGolden = Callable[[Path, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write golden files anew")


@pytest.fixture
def assert_golden(request: pytest.FixtureRequest) -> AssertGolden:
    """Compares a text with a file, or writes the file when that is asked for."""

    def compare(file: Path, text: str) -> None:
        if request.config.getoption("--rewrite-golden"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        assert text == file.read_text(), (
            f"{file.name} differs; if that is meant: pytest --rewrite-golden"
        )

    return compare
