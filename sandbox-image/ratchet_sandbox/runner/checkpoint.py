"""The shell's saved state on disk, and what it was left running, so that both outlive the
runner's container.

The file lies in the workspace and the model's commands can change it: it is only ever read back
into their own shell, which gives them nothing that they do not have.
"""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Final

from ratchet_sandbox.runner.driver import STATE_LIMIT, State


def save(path: Path, state: State) -> bool:
    """Keep the state; where the disk takes no files, the one in memory must do, and it is False."""
    beside = path.with_name(path.name + ".new")
    with contextlib.suppress(OSError):
        beside.write_text(json.dumps(dataclasses.asdict(state)), encoding="ascii")
        os.replace(beside, path)
        return True
    return False


_SHOWN: Final = 200


def save_running(path: Path, command: str) -> None:
    """Remember that this command was left running."""
    with contextlib.suppress(OSError):
        path.write_text(command[:_SHOWN], encoding="utf-8", errors="replace")


def load_running(path: Path) -> str:
    """The command that was left running, cut to 200 characters; empty if none was."""
    try:
        with path.open("rb") as file:
            return file.read(4 * _SHOWN).decode(errors="replace")[:_SHOWN]
    except OSError:
        return ""


def forget_running(path: Path) -> None:
    """It has ended, or its loss has been told."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def load(path: Path) -> State | None:
    """The state that was kept; None if there is none or it is no state."""
    try:
        with path.open(encoding="ascii") as file:
            value = json.loads(file.read(2 * STATE_LIMIT))
        state = State(**value)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    good = all(isinstance(text, str) for text in dataclasses.astuple(state))
    return state if good else None
