"""Running the programs of the bundle: through its own loader, since the image may have none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

LOADER: Final = "lib/ld.so"

GIT_ENVIRONMENT: Final[Mapping[str, str]] = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}
"""Nobody's configuration counts but that of the repository that is named (git(1))."""


def command(runtime: Path, program: str) -> list[str] | None:
    """The first words of a command line for a program of the bundle; None if it lacks it."""
    path = runtime / "bin" / program
    if not path.exists():
        return None
    loader = runtime / LOADER
    if not loader.exists():
        return [str(path)]
    return [str(loader), "--library-path", str(runtime / "lib"), str(path)]
