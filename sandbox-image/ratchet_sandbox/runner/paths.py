"""Paths as tools take them: where they lead, and opening only what is a regular file.

Two rules. Reading may go anywhere in the container, as the model's commands may. Writing stays in
the workspace, whatever links are there and whoever swaps them meanwhile: a file that is to be
written is reached folder by folder from the workspace's own, each opened from the one before it
and never through a link. Links are followed by reading them and walking on, so one that leads to
a place in the workspace works and any other is refused. That is a rule for the file tools and
not a wall: the model's commands run with the same rights and may write wherever these allow it.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ratchet_sandbox.protocol import PATH_LIMIT

_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: opening a FIFO would wait for a writer otherwise."""
_LINKS: Final = 40
"""Links on one path, as Linux has it (path_resolution(7))."""
_KERNEL: Final = ("/proc", "/sys")
_FOLDER_ENDS: Final = ("/", "/.", "/..")


class BadPath(Exception):
    """The path cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file of the workspace is, or would be; good while the folder is held open."""

    folder: int
    """Descriptor of the folder (O_PATH)."""
    name: str
    """The file's name in it. It was no link when it was looked at."""
    path: str
    """From the workspace to the file, without links."""

    def open(self) -> BinaryIO:
        """The file for reading. Raises OSError, BadPath if it is no regular file."""
        _want_regular(self.look())
        return _regular(os.open(self.name, _READ | os.O_NOFOLLOW, dir_fd=self.folder))

    def look(self) -> os.stat_result:
        """What is there now, even if a link is by now. Raises OSError."""
        return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)


def resolve(workspace: Path, path: str) -> Path:
    """The file that a tool's path means: relative paths start at the workspace; links followed."""
    _check(path)
    return Path(os.path.realpath(workspace / path))


def inside(workspace: Path, path: str) -> Path:
    """Like `resolve`, and refuses what is not in the workspace."""
    found = resolve(workspace, path)
    if not found.is_relative_to(workspace.resolve()):
        raise _outside(workspace)
    return found


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, BadPath for anything else."""
    _want_regular(os.stat(path))  # first: opening a device may do something
    return _regular(os.open(path, _READ))


def is_kernel(found: os.stat_result) -> bool:
    """Whether this belongs to /proc or /sys: not kept anywhere, maybe endless, and /proc/self
    is another process for a tool than for a command."""
    root = os.stat("/").st_dev
    for folder in _KERNEL:
        with contextlib.suppress(OSError):
            if root != os.stat(folder).st_dev == found.st_dev:
                return True
    return False


def what_it_is(found: os.stat_result) -> str:
    """Words for what no file tool takes, and what to do instead."""
    if stat.S_ISDIR(found.st_mode):
        return "a folder, not a file: list it with bash (ls)"
    if is_kernel(found):
        return "the kernel's and no file on a disk: look at it with bash (head -c)"
    if stat.S_ISFIFO(found.st_mode):
        return "a FIFO, not a regular file: use it with bash, under timeout"
    return "a device, socket or link, not a regular file: use it with bash"


@contextlib.contextmanager
def enter(workspace: Path, path: str, *, make: bool = False) -> Iterator[Place]:
    """Hold the folder of a file in the workspace, making folders on the way if wished.

    Raises OSError, BadPath for a path that leads out or names a folder.
    """
    _check(path)
    waiting = _below(workspace, path)[::-1]
    if not waiting or path.endswith(_FOLDER_ENDS):
        raise _names_folder()
    links = 0
    with contextlib.closing(_Walk(workspace, make=make)) as walk:
        while waiting:
            name = waiting.pop()
            if name == "..":
                walk.up()
            elif (target := walk.link(name)) is not None:
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith("/"):
                    walk.top()
                waiting += _below(workspace, target)[::-1]
            elif waiting:
                walk.down(name)
            else:
                yield Place(walk.folder, name, "/".join((*walk.passed, name)))
                return
        raise _names_folder()


def sync(folder: int) -> None:
    """Have the folder's entries on the disk: what was made or renamed in it outlasts a crash."""
    try:
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except PermissionError:
        return  # one that may be written but not listed
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Walk:
    """One open folder at or below the workspace's own, reached without any link."""

    def __init__(self, workspace: Path, *, make: bool) -> None:
        self.folder = _root(workspace)
        self.passed: list[str] = []
        self._workspace = workspace
        self._make = make

    def close(self) -> None:
        os.close(self.folder)

    def link(self, name: str) -> str | None:
        """Where the link of this name leads; None if it is no link or not there."""
        try:
            return os.readlink(name, dir_fd=self.folder)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise

    def down(self, name: str) -> None:
        try:
            found = os.open(name, _FOLDER, dir_fd=self.folder)
        except FileNotFoundError:
            if not self._make:
                raise
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=self.folder)
                sync(self.folder)
            found = os.open(name, _FOLDER, dir_fd=self.folder)
        self._hold(found)
        self.passed.append(name)

    def up(self) -> None:
        """Walk down again to the last folder. Not by "..": one that was moved has another."""
        if not self.passed:
            raise _outside(self._workspace)
        names = self.passed[:-1]
        self.top()
        for name in names:
            self.down(name)

    def top(self) -> None:
        self._hold(_root(self._workspace))
        self.passed.clear()

    def _hold(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder


def _root(workspace: Path) -> int:
    return os.open(workspace, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _below(workspace: Path, path: str) -> list[str]:
    """The path's parts, seen from the workspace's folder. Raises BadPath for another place."""
    parts = _parts(path)
    if not path.startswith("/"):
        return parts
    for base in (_parts(str(workspace)), _parts(str(workspace.resolve()))):
        if parts[: len(base)] == base:
            return parts[len(base) :]
    raise _outside(workspace)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _check(path: str) -> None:
    if not path or "\0" in path:
        raise BadPath("a path must not be empty or hold a NUL")
    if len(path.encode(errors="replace")) > PATH_LIMIT:
        raise BadPath(f"the path is too long: over {PATH_LIMIT} bytes")


def _outside(workspace: Path) -> BadPath:
    return BadPath(f"it is outside the workspace {workspace}: give a path below that")


def _names_folder() -> BadPath:
    return BadPath("it names a folder: add the name of a file")


def _want_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or is_kernel(found):
        raise BadPath(f"it is {what_it_is(found)}")


def _regular(descriptor: int) -> BinaryIO:
    """A file object for a descriptor of a regular file; else it is closed: it was swapped."""
    try:
        _want_regular(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BadPath:
        os.close(descriptor)
        raise
