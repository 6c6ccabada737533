"""Paths as tools take them, and opening only what is a regular file.

These checks are for clear answers, not for isolation: the model's commands have the same rights.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ratchet_sandbox.protocol import PATH_LIMIT


class BadPath(Exception):
    """The path cannot be used; the message says why."""


def resolve(workspace: Path, path: str) -> Path:
    """The file that a tool's path means: relative paths start at the workspace; links followed."""
    if "\0" in path or not path or len(path.encode(errors="replace")) > PATH_LIMIT:
        raise BadPath(f"not a usable path: empty, with a NUL, or over {PATH_LIMIT} bytes")
    return Path(os.path.realpath(workspace / path))


def inside(workspace: Path, path: str) -> Path:
    """Like `resolve`, and refuses what is not in the workspace."""
    found = resolve(workspace, path)
    if not found.is_relative_to(workspace.resolve()):
        raise BadPath(f"{path} is outside the workspace")
    return found


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, BadPath for anything else.

    O_NONBLOCK: opening a FIFO would wait for a writer otherwise.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise BadPath(f"{path} is {_kind(mode)}, not a regular file")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a FIFO" if stat.S_ISFIFO(mode) else "a device or socket"
