"""Whose workspace this is, and its base repository, in a folder that lives as long as the workspace.

No command of the model's can write there: it is the volume of the runtime, or, where the workspace
is on a claim and outlives its pod, a folder of that claim which only `prepare` mounts. ``task`` is
a line of JSON: whose workspace it is, and ``base``, its base commit; without a base it is still
being filled. ``base.git`` is the base repository, of which the next pod gets a copy.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ratchet_sandbox.runner.base import NotPrepared
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.gitcommand import git, line

_OURS: Final = ".ratchet"
_TASK: Final = "task"


@dataclass(frozen=True, slots=True)
class Kept:
    """The marker. An empty `base`: nothing in the workspace is anybody's work yet."""

    task: str
    base: str = ""

    @property
    def complete(self) -> bool:
        """Whether the workspace was filled, so that it must never be touched again."""
        return bool(self.base)


def read(config: Config) -> Kept | None:
    """The marker, None if there is none. Raises NotPrepared for one that cannot be read."""
    path = config.kept / _TASK
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Kept(str(found["task"]), str(found["base"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotPrepared(
            f"whose workspace this is cannot be read from {path}: {error}. Delete the task and its "
            "PersistentVolumeClaim, and create the task again"
        ) from error


def begin(config: Config, task_uid: str) -> None:
    """Say that this task is about to fill the workspace. Raises NotPrepared if it is not empty."""
    found = sorted(path.name for path in config.workspace.iterdir() if path.name != _OURS)
    if found:
        raise NotPrepared(
            f"the volume of the workspace is not empty ({found[0]!r} is there), and does not say "
            "whose files these are: give each task a volume of its own"
        )
    begun(config, task_uid)


def begun(config: Config, task_uid: str) -> None:
    """Mark the workspace as one that this task is filling."""
    _write(config.kept, Kept(task_uid))


def keep(config: Config, task_uid: str) -> None:
    """Keep the base repository, and say that the workspace is complete. Raises GitFailed."""
    commit = line(
        git(config.runtime, "rev-parse", "--verify", "HEAD^{commit}", folder=config.runtime,
            repository={"GIT_DIR": str(config.base)})
    )  # fmt: skip
    if config.claim is not None:
        _replace(config.base, config.claim / config.base.name)
        os.sync()  # all of it must be on the disk before it is said to be there
    _write(config.kept, Kept(task_uid, commit))


def restore(config: Config) -> None:
    """Have the base repository where this pod's runner looks for it. Raises NotPrepared."""
    made = config.kept / config.base.name
    if not made.is_dir():
        raise NotPrepared(
            f"the base repository {made} is gone, so no patch could be made: delete the sandbox pod, "
            "and the PersistentVolumeClaim of the task if it has one; it then starts again"
        )
    if made != config.base:
        _replace(made, config.base)


def _replace(source: Path, target: Path) -> None:
    beside = target.with_name(f"{target.name}.new")
    for old in (target, beside):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, beside)
    beside.rename(target)


def _write(folder: Path, kept: Kept) -> None:
    """The whole marker or none of it, and on the disk."""
    beside = folder / f"{_TASK}.new"
    with beside.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"task": kept.task, "base": kept.base}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.rename(folder / _TASK)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
