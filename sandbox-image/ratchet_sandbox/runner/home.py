"""The runner's own folder in the workspace, and a HOME that git and other tools can work with.

The workspace's root belongs to another uid (fsGroup volumes do), which git calls "dubious
ownership" unless safe.directory says otherwise (git 2.35.3 and later, git-config(1)). Commands
may delete all of this (``git clean -fdx``), so it is looked after before each command.
"""

import contextlib
from pathlib import Path
from typing import Final

from ratchet_sandbox.runner.config import Config

SPILLS_KEPT: Final = 16

_GITCONFIG: Final = """\
[user]
\tname = Ratchet
\temail = ratchet@localhost
[safe]
\tdirectory = *
[init]
\tdefaultBranch = main
[advice]
\tdetachedHead = false
"""


def arrange(config: Config) -> None:
    """Make what is missing. Raises OSError if the workspace cannot be written."""
    for folder in (config.scratch, config.spill, config.home):
        folder.mkdir(parents=True, exist_ok=True)
    _write_if_missing(config.private / ".gitignore", "*\n")
    _write_if_missing(config.home / ".gitconfig", _GITCONFIG)


def forget_old_spills(config: Config) -> None:
    """Keep the newest spill files only: many of them would fill the workspace's volume."""
    with contextlib.suppress(OSError):
        files = sorted(config.spill.iterdir(), key=lambda path: path.lstat().st_mtime)
        for path in files[:-SPILLS_KEPT]:
            path.unlink(missing_ok=True)


def _write_if_missing(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text, encoding="utf-8")
