"""The base repository: one commit that the patch is made against, out of the commands' reach.

From files alone its commit depends on them alone (fixed author and date), so it is the same each
time. From a clone it is the cloned commit itself, or, with files on top, one commit behind that.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.gitcommand import git, line

UPSTREAM: Final = "upstream"
"""File in the base repository with the commit that was cloned; absent without a clone."""
_EXCLUDE: Final = ".ratchet/\n"
_AUTHOR: Final = {"NAME": "Ratchet", "EMAIL": "ratchet@localhost", "DATE": "946684800 +0000"}
_IDENTITY: Final = {
    f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in _AUTHOR.items()
}
_BLOB_MODES: Final = {0o664: "100644", 0o775: "100755"}


class NotPrepared(Exception):
    """The sandbox cannot be made ready; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class StartFile:
    """A file of the start workspace. `source` is the name of its content in the files' folder."""

    path: str
    source: str
    mode: int


def from_files(config: Config, files: Sequence[StartFile], start_files: Path) -> None:
    """A bare repository with one commit of the files, made anew each time."""
    shutil.rmtree(config.base, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=config.runtime) as folder:
        tree = Path(folder, "tree")
        tree.mkdir()
        write(tree, files, start_files)
        made = _new(config, Path(folder, "base.git"))
        run = partial(git, config.runtime, folder=tree)
        repository = {"GIT_DIR": str(made), "GIT_WORK_TREE": str(tree), **_IDENTITY}
        run("add", "--all", "--force", ".", repository=repository)
        content = line(run("write-tree", repository=repository))
        commit = line(run("commit-tree", "-m", "base", content, repository=repository))
        run("update-ref", "HEAD", commit, repository=repository)
        made.rename(config.base)


def from_clone(config: Config, files: Sequence[StartFile], start_files: Path) -> None:
    """A bare repository with what the clone's commit and the files make together.

    The clone's own HEAD is moved to the same commit. Raises NotPrepared for a file that does not
    fit into the clone.
    """
    run = partial(git, config.runtime, folder=config.clone)
    repository = {"GIT_DIR": str(config.clone)}
    upstream = line(run("rev-parse", "--verify", "refs/ratchet/upstream^{commit}",
                        repository=repository))  # fmt: skip
    commit = _with_files(config, upstream, files, start_files) if files else upstream
    run("update-ref", "HEAD", commit, repository=repository)
    shutil.rmtree(config.base, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=config.base.parent) as folder:
        made = _new(config, Path(folder, "base.git"))
        root = line(run("rev-parse", f"{commit}^{{tree}}", repository=repository))
        objects = {commit, upstream, root, *(entry.object for entry in _entries(config, commit))}
        # From within the new one, since git packs into a file beside its own objects first, and
        # cannot rename that into another volume.
        alternate = {
            "GIT_DIR": str(made),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(config.clone / "objects"),
        }
        run(
            "pack-objects", "-q", "--threads=1", "objects/pack/pack", folder=made,
            repository=alternate, stdin="".join(f"{one}\n" for one in sorted(objects)).encode(),
        )  # fmt: skip
        (made / "shallow").write_text(f"{upstream}\n", encoding="ascii")  # its parents are not here
        (made / UPSTREAM).write_text(f"{upstream}\n", encoding="ascii")
        run("update-ref", "HEAD", commit, repository={"GIT_DIR": str(made)})
        made.rename(config.base)


def upstream(config: Config) -> str:
    """The commit that was cloned; empty without a clone."""
    try:
        return (config.base / UPSTREAM).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def write(folder: Path, files: Sequence[StartFile], start_files: Path) -> None:
    """Put the files into a folder that holds nothing of anybody else's."""
    for file in files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(start_files / file.source, target)
        target.chmod(file.mode)


def _new(config: Config, made: Path) -> Path:
    git(config.runtime, "init", "--quiet", "--bare", "--template=", "--initial-branch=main",
        str(made), folder=made.parent)  # fmt: skip
    (made / "info").mkdir()
    (made / "info" / "exclude").write_text(_EXCLUDE, encoding="utf-8")
    return made


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file (blob), folder (tree) or submodule (commit) of a tree."""

    kind: str
    object: str
    path: str


def _entries(config: Config, commit: str) -> list[_Entry]:
    """All that the clone's commit holds and the clone has: everything but submodules."""
    listed = git(config.runtime, "ls-tree", "-r", "-t", "-z", commit, folder=config.clone,
                 repository={"GIT_DIR": str(config.clone)})  # fmt: skip
    entries = []
    for row in listed.split(b"\0")[:-1]:
        facts, name = row.split(b"\t", 1)
        _, kind, object = facts.decode().split()
        entries.append(_Entry(kind, object, os.fsdecode(name)))
    return [entry for entry in entries if entry.kind != "commit"]


def _with_files(
    config: Config, upstream: str, files: Sequence[StartFile], start_files: Path
) -> str:
    """The commit of the clone's tree with the files on top."""
    kinds = {entry.path: entry.kind for entry in _entries(config, upstream)}
    for file in files:
        _check_place(file.path, kinds)
    with tempfile.TemporaryDirectory(dir=config.runtime) as folder:
        repository = {
            "GIT_DIR": str(config.clone),
            "GIT_INDEX_FILE": f"{folder}/index",
            **_IDENTITY,
        }
        run = partial(git, config.runtime, folder=start_files, repository=repository)
        run("read-tree", upstream)
        names = "".join(f"{file.source}\n" for file in files).encode()
        objects = run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names)
        rows = [
            f"{_BLOB_MODES[file.mode]} {object}\t{file.path}\0"
            for file, object in zip(files, objects.decode().split(), strict=True)
        ]
        run("update-index", "-z", "--index-info", stdin="".join(rows).encode())
        tree = line(run("write-tree"))
        return line(run("commit-tree", "-m", "base", "-p", upstream, tree))


def _check_place(path: str, kinds: Mapping[str, str]) -> None:
    above = [str(parent) for parent in PurePosixPath(path).parents if str(parent) != "."]
    for parent in above:
        if kinds.get(parent, "tree") != "tree":
            raise NotPrepared(
                f"spec.files: {path!r} cannot be put into the clone, where {parent!r} is no folder"
            )
    if kinds.get(path, "blob") != "blob":
        raise NotPrepared(
            f"spec.files: {path!r} cannot be put into the clone, where it is a folder"
        )
