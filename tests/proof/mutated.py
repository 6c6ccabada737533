"""Tests, or a sandbox's server, with a fault put in: `RATCHET_MUTATION` names it.

As a plugin, `python -m pytest -p tests.proof.mutated ...`, it puts the fault into the process of the
tests and into the servers that they start; as a program it is such a server. Nothing in the product
reads the variable.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.proof.mutations import ALL

VARIABLE = "RATCHET_MUTATION"
REPO = Path(__file__).resolve().parents[2]
PATHS = ("", "operator", "sandbox-image", "inference/fake")
_SERVER = "ratchet_sandbox.server"


def environment(mutation: str) -> dict[str, str]:
    """The variables of a process that is to have this fault."""
    paths = os.pathsep.join(str(REPO / path) for path in PATHS)
    return {**os.environ, "PYTHONPATH": paths, VARIABLE: mutation}


def pytest_configure() -> None:
    """Put the fault in, before any test is imported."""
    from tests.unit.sandbox import servers

    patch = pytest.MonkeyPatch()  # never undone: this process ends with its tests
    ALL[os.environ[VARIABLE]](patch)
    patch.setattr(servers, "subprocess", SimpleNamespace(Popen=_start))


def _start(command: list[str], *, env: dict[str, str], **more: Any) -> subprocess.Popen[bytes]:
    """Start the program, or the server with its fault where it is the server."""
    mutated = [__name__ if word == _SERVER else word for word in command]
    return subprocess.Popen(mutated, env={**env, **environment(os.environ[VARIABLE])}, **more)


def main() -> int:
    """The sandbox's server, with the fault."""
    from ratchet_sandbox.server.__main__ import main as serve

    ALL[os.environ[VARIABLE]](pytest.MonkeyPatch())
    return serve()


if __name__ == "__main__":
    sys.exit(main())
