"""What the operator asks of the workspace: its changes as a patch, digests, single files.

The patch is made with the runner's own bare repository, which the model's commands cannot write,
through an index and an object folder that live for one call. So a deleted or doctored .git in
the workspace changes nothing. A repository inside the workspace is taken as plain files.
"""

import base64
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ratchet_sandbox import protocol
from ratchet_sandbox.runner import base as repository
from ratchet_sandbox.runner import bundle, home, paths, wholefile
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.processes import Children, Completed

CHANGED_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of changed files beyond which no patch is tried: it would fill the workspace's volume."""
_LIST_LIMIT: Final = 16 * 1024 * 1024
_TIMEOUT_S: Final = 60.0
_NESTED_LIMIT: Final = 100


class Refused(Exception):
    """A question that cannot be answered; `code` and `size` as in `protocol.Error`."""

    def __init__(self, code: str, message: str, size: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.size = size


class Git:
    """git on the base repository, with the workspace and a throw-away index and object folder."""

    def __init__(self, config: Config, children: Children, scratch: Path) -> None:
        program = bundle.command(config.runtime, "git")
        if program is None:
            raise Refused("failed", f"git is missing from the runtime {config.runtime}")
        self._program = program
        self._children = children
        self._scratch = scratch
        self._workspace = config.workspace
        (scratch / "objects").mkdir()
        self._environment = {
            **bundle.GIT_ENVIRONMENT,
            "GIT_DIR": str(config.base),
            "GIT_INDEX_FILE": str(scratch / "index"),
            "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(config.base / "objects"),
            "GIT_EXEC_PATH": str(config.runtime / "libexec" / "git-core"),
            "HOME": str(scratch),
        }

    async def __call__(
        self, *arguments: str, limit: int = _LIST_LIMIT, tree: Path | None = None,
        index: str = "index", stdin: bytes = b"",
    ) -> Completed:  # fmt: skip
        """Run git in the work tree (or a folder of it); `Refused` if it fails or takes too long."""
        folder = tree or self._workspace
        environment = {
            **self._environment,
            "GIT_WORK_TREE": str(folder),
            "GIT_INDEX_FILE": str(self._scratch / index),
        }
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            file.write(stdin)
            file.seek(0)
            completed = await self._children.run(
                [*self._program, "-c", "core.fsmonitor=false", "-c", "gc.auto=0",
                 "-c", "core.quotePath=false", *arguments],
                environment=environment, folder=folder, limit=limit, timeout=_TIMEOUT_S, stdin=file,
            )  # fmt: skip
        if completed.code != 0:
            why = "it took too long" if completed.timed_out else completed.errors[-500:]
            raise Refused("failed", f"git {arguments[0]} failed in the workspace: {why}")
        return completed


async def diff(config: Config, children: Children, id: str) -> protocol.Patch:
    """The workspace's changes since the base commit, untracked files included, ignored ones not.

    Raises Refused: ``too_large`` beyond `protocol.PATCH_LIMIT`, ``failed`` otherwise.
    """
    with _scratch(config) as scratch:
        git = Git(config, children, scratch)
        if (config.base / "index").exists():
            # Spares reading all files. With its time: git trusts an entry only if the file is
            # older than the index, else it compares content (racy-git in git's documentation).
            shutil.copy2(config.base / "index", scratch / "index")
        else:
            await git("read-tree", "HEAD")
        await _stage(git, config.workspace)
        base = (await git("rev-parse", "HEAD^{commit}")).output.decode().strip()
        tree = (await git("write-tree")).output.decode().strip()
        patch = await git(
            "diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-color",
            "--no-ext-diff", "--no-textconv", base, tree, limit=protocol.PATCH_LIMIT,
        )  # fmt: skip
    if patch.size > protocol.PATCH_LIMIT:
        raise Refused("too_large", f"the patch has {patch.size} bytes, over "
                      f"{protocol.PATCH_LIMIT}", patch.size)  # fmt: skip
    data = base64.b64encode(patch.output).decode()
    sha256 = hashlib.sha256(patch.output).hexdigest()
    return protocol.Patch(id, base, data, patch.size, sha256, repository.upstream(config))


def digest(config: Config, path: str) -> str | None:
    """The digest of a file, path as a tool takes it; None if there is no such regular file."""
    try:
        with paths.open_regular(paths.resolve(config.workspace, path)) as file:
            return "sha256:" + _sha256(file)
    except (OSError, paths.BadPath):
        return None


def read(config: Config, id: str, path: str) -> protocol.File:
    """The bytes of a file of the workspace. Raises Refused."""
    try:
        with paths.open_regular(paths.inside(config.workspace, path)) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(protocol.FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Refused("not_found", f"{path}: there is no such file in the workspace") from error
    except paths.BadPath as error:
        raise Refused("bad_path", str(error)) from error
    except OSError as error:
        raise Refused("failed", f"{path}: {wholefile.reason(error)}") from error
    if len(data) > protocol.FILE_LIMIT:
        raise Refused("too_large", f"{path} has {size} bytes, over {protocol.FILE_LIMIT}", size)
    return protocol.File(id, base64.b64encode(data).decode())


@dataclass(frozen=True, slots=True)
class _Listed:
    """Files to stage, relative to the workspace, and repositories found inside it."""

    files: list[bytes]
    nested: list[bytes]


async def _stage(git: Git, workspace: Path) -> None:
    """Bring the index to what the workspace holds."""
    changed = await git("ls-files", "-z", "--modified", "--deleted")
    names = set(changed.output.split(b"\0")[:-1])
    waiting = [b""]
    for number in range(_NESTED_LIMIT):
        if not waiting:
            break
        found = await _untracked(git, workspace, waiting.pop(), number)
        names |= set(found.files)
        waiting += found.nested
    usable = [name for name in names if not _private(name) and _readable(workspace, name)]
    size = sum(_size(workspace, name) for name in usable)
    if size > CHANGED_LIMIT:
        raise Refused("too_large", f"changed files hold {size} bytes, over {CHANGED_LIMIT}: put "
                      "what is no result into .gitignore", size)  # fmt: skip
    # --replace: a file may stand where a folder was, and the other way round.
    await git("update-index", "-z", "--add", "--remove", "--replace", "--stdin",
              stdin=b"".join(name + b"\0" for name in sorted(usable)))  # fmt: skip


async def _untracked(git: Git, workspace: Path, nested: bytes, number: int) -> _Listed:
    """Untracked files of the work tree, or, with an empty index, all of a repository inside it."""
    options = ("-z", "--others", "--exclude-standard")
    if not nested:
        found = await git("ls-files", *options)
    else:
        tree = workspace / os.fsdecode(nested)
        found = await git("ls-files", *options, tree=tree, index=f"nested-{number}")
    names = [nested + name for name in found.output.split(b"\0")[:-1]]
    return _Listed(
        [n for n in names if not n.endswith(b"/")], [n for n in names if n.endswith(b"/")]
    )


@contextlib.contextmanager
def _scratch(config: Config) -> Iterator[Path]:
    home.arrange(config)
    with tempfile.TemporaryDirectory(dir=config.scratch, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1024 * 1024):
        digest.update(chunk)
    return digest.hexdigest()


def _private(name: bytes) -> bool:
    return name == b".ratchet" or name.startswith(b".ratchet/")


def _readable(workspace: Path, name: bytes) -> bool:
    """Whether git can take this path: a link, a regular file that we may read, or one gone."""
    path = workspace / os.fsdecode(name)
    try:
        mode = path.lstat().st_mode
    except OSError:
        return True
    return stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and os.access(path, os.R_OK))


def _size(workspace: Path, name: bytes) -> int:
    try:
        return (workspace / os.fsdecode(name)).lstat().st_size
    except OSError:
        return 0
