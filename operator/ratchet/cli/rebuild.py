"""A file of a task that has ended: its start files with its patch on top, by the git that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from ratchet.build.files import StartFile
from ratchet.cli.failures import Failed
from ratchet.core.config import GitSource
from ratchet.core.records import Patch

_AUTHOR: Final = {
    f"GIT_{who}_{key}": value
    for who in ("AUTHOR", "COMMITTER")
    for key, value in (
        ("NAME", "Ratchet"), ("EMAIL", "ratchet@localhost"), ("DATE", "946684800 +0000"),
    )
}  # fmt: skip
"""Whoever makes a base commit says that it was made by this one, so that it depends on files alone."""


def inside(path: str) -> str:
    """A path relative to the workspace, as patches have it. Raises Failed."""
    parts = PurePosixPath(path.removeprefix("/workspace/")).parts
    if not parts or parts[0] == "/" or {"..", ".git"} & set(parts):
        raise Failed(f"{path!r} is no file of the workspace: write it like src/main.py.")
    return "/".join(parts)


def rebuilt(
    path: str, files: Sequence[StartFile], patch: Patch, data: bytes, git: GitSource | None,
    task: str,
) -> bytes:  # fmt: skip
    """The content of a file as the task left it.

    Of a task that began with a clone only what the task itself or its start files brought can be
    told: the clone is not here. Raises Failed, which then says how to get it.
    """
    if shutil.which("git") is None:
        raise Failed("Files of an ended task are made with git, and there is none on the PATH.")
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        _git(tree, "init", "--quiet", "--template=")
        for file in files:
            target = tree / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
            target.chmod(int(file.mode, 8))
        if git is None:
            _check_base(tree, patch.base)
        applied = _git(
            tree, "apply", "--binary", "--allow-empty", f"--include={_literal(path)}", "-",
            stdin=data, may_fail=git is not None,
        )  # fmt: skip
        content = _read(tree, path) if applied is not None else None
    if content is not None:
        return content
    if git is not None:
        raise Failed(_advice(path, patch, git, task))
    raise Failed(f"There is no file {path} in the workspace that task {task} left.")


def _check_base(tree: Path, base: str) -> None:
    """See that the files are those that the task began with: their commit is the patch's base."""
    _git(tree, "add", "--all", "--force", ".")
    content = _git(tree, "write-tree")
    made = _git(tree, "commit-tree", "-m", "base", (content or b"").decode().strip())
    if (made or b"").decode().strip() != base:
        raise Failed(
            "The start files are not those that the task began with: a ConfigMap that spec.files "
            "names was changed since. `ratchet diff` prints what the task did to them."
        )


def _advice(path: str, patch: Patch, git: GitSource, task: str) -> str:
    clone = (
        f"git clone {git.url} work && git -C work checkout {patch.upstream_commit or patch.base}"
    )
    return (
        f"{path} is not among the files that task {task} made, so it is to be had from the clone "
        f"only, if it is there: {clone} && ratchet diff {task} | git -C work apply --binary"
    )


def _read(tree: Path, path: str) -> bytes | None:
    """A file's bytes; no link is followed, since the model made it."""
    place = tree
    for part in PurePosixPath(path).parts:
        place = place / part
        if place.is_symlink():
            where = place.relative_to(tree)
            raise Failed(f"{where} is a symbolic link to {os.readlink(place)}: ask for that.")
    if place.is_dir():
        raise Failed(f"{path} is a folder: ask for a file in it.")
    return place.read_bytes() if place.is_file() else None


def _literal(path: str) -> str:
    """A path as a pattern that means nothing else (git-apply(1), --include)."""
    return "".join(f"\\{c}" if c in "*?[\\" else c for c in path)


def _git(tree: Path, *arguments: str, stdin: bytes = b"", may_fail: bool = False) -> bytes | None:
    """What git prints; None where it may fail and does. Nobody's configuration counts."""
    environment = {
        "PATH": os.environ.get("PATH", ""), "HOME": str(tree), "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_DIR": str(tree / ".git"),
        "GIT_WORK_TREE": str(tree), **_AUTHOR,
    }  # fmt: skip
    done = subprocess.run(
        ["git", "-c", "core.autocrlf=false", *arguments], cwd=tree, env=environment, input=stdin,
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return None
    errors = done.stderr.decode("utf-8", "replace").strip()
    raise Failed(f"git {arguments[0]} failed, so the file cannot be made: {errors}")
