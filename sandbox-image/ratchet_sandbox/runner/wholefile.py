"""A file of the workspace taken as a whole, and put in place as a whole."""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ratchet_sandbox.runner import encoding
from ratchet_sandbox.runner.encoding import TooLarge
from ratchet_sandbox.runner.paths import BadPath, Place, sync

NEW_FILE_MODE: Final = 0o664
"""As the shell's umask has it: the group is shared between the pod's containers."""
_TEMPORARY: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ADVICE: Final[Mapping[int, str]] = {
    errno.ENOENT: "look for it with bash (ls, find)",
    errno.ENOSPC: "remove files that are not needed",
    errno.EDQUOT: "remove files that are not needed",
    errno.ENOTDIR: "a part of the path before the last is a file",
    errno.ELOOP: "give the path that the links should lead to",
    errno.EACCES: "see its owner and mode with bash (ls -l)",
    errno.EPERM: "see its owner and mode with bash (ls -l)",
    errno.ENAMETOOLONG: "give a shorter one",
    errno.EROFS: "it can only be read",
}

FAULTS: Final = (OSError, BadPath, TooLarge, UnicodeError)
"""What may go wrong with a file; `reason` has words for each."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file's bytes, and what it was when they were read."""

    data: bytes
    found: os.stat_result


def load(place: Place) -> Loaded:
    """All bytes of a regular file. Raises OSError, BadPath, TooLarge (over `EDIT_LIMIT`)."""
    with place.open() as file:
        found = os.fstat(file.fileno())
        data = b"" if found.st_size > encoding.EDIT_LIMIT else file.read(encoding.EDIT_LIMIT + 1)
    if max(found.st_size, len(data)) > encoding.EDIT_LIMIT:
        raise TooLarge(
            f"it has {found.st_size} bytes, over the limit of {encoding.EDIT_LIMIT}: "
            "change it with bash (sed -i)"
        )
    return Loaded(data, found)


def replace(place: Place, data: bytes, old: Loaded | None) -> None:
    """Put a file in place as a whole: readers see the old or the new one, a crash leaves either.

    `old` is what was there, None for no file; if it was changed since, nothing is written. Its
    mode bits are kept, and its owner where that is allowed. A hard link elsewhere to the old file
    keeps the old content. Raises OSError, BadPath.
    """
    name = f".ratchet-{secrets.token_hex(8)}"
    descriptor = os.open(name, _TEMPORARY, 0o600, dir_fd=place.folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            _dress(file.fileno(), old)
            os.fsync(file.fileno())
        if _identity(_look(place)) != _identity(old.found if old else None):
            raise BadPath("something else changed it meanwhile; nothing was written. Read it again")
        os.rename(name, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except BaseException:  # also when cancelled: no temporary file stays behind
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=place.folder)
        raise
    sync(place.folder)


def digest(data: bytes) -> str:
    """The digest of a file's bytes as the protocol writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def reason(error: Exception) -> str:
    """An error in words for the model, without this machine's inner paths."""
    if isinstance(error, OSError):
        what = error.strerror or type(error).__name__
        advice = _ADVICE.get(error.errno or 0)
        return f"{what}: {advice}" if advice else what
    if isinstance(error, UnicodeError):
        return f"its bytes are no text in the encoding that its byte-order mark names ({error})"
    return str(error)


def _dress(descriptor: int, old: Loaded | None) -> None:
    if old is None:
        os.fchmod(descriptor, NEW_FILE_MODE)
        return
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, old.found.st_uid, old.found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.found.st_mode))  # last: chown takes set-uid away


def _look(place: Place) -> os.stat_result | None:
    try:
        return place.look()
    except FileNotFoundError:
        return None


def _identity(found: os.stat_result | None) -> tuple[int, ...] | None:
    if found is None:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
