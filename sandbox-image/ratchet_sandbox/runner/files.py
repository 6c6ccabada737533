"""`read_file` and `write_file`, and the atomic replacement that all writing tools use."""

import contextlib
import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.runner import encoding, paths
from ratchet_sandbox.runner.output import decode, whole_end
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed

READ_LIMIT: Final = 64_000
NEW_FILE_MODE: Final = 0o664
"""As the shell's umask has it: the group is shared between the pod's containers."""
_DEFAULT_LINES: Final = 2000
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Window:
    """Some lines of a file, without their line ends."""

    lines: tuple[bytes, ...]
    skipped: int
    """Lines passed over at the start: fewer than asked for if the file is shorter."""
    more: bool
    """The file goes on."""
    cut: bool
    """The last line is not whole."""


def read_file(context: Context, arguments: Arguments) -> ToolResult:
    """Numbered lines of a text file: `limit` of them after the first `offset`."""
    offset, limit = arguments.get("offset") or 0, arguments.get("limit") or _DEFAULT_LINES
    try:
        path = paths.resolve(context.config.workspace, arguments["path"])
        with paths.open_regular(path) as file:
            part = window(encoding.as_utf8(file), offset, limit, READ_LIMIT)
    except (OSError, paths.BadPath, UnicodeError) as error:
        return failed(f"cannot read {arguments['path']}: {reason(error)}")
    return _numbered(part, offset)


def write_file(context: Context, arguments: Arguments) -> ToolResult:
    """Write a whole file; one that is there is replaced only with `overwrite`.

    The same content again is a success, so that a repeated call ends like the first one.
    """
    name, content = arguments["path"], arguments["content"]
    try:
        path = paths.resolve(context.config.workspace, name)
        old = _existing(path)
        data, note = _styled(content, old)
        if old is not None and old != data and not arguments.get("overwrite"):
            return failed(f"{name} exists; nothing was written. Set overwrite to replace it.")
        if old != data:
            replace(path, data)
    except (OSError, paths.BadPath, UnicodeError) as error:
        return failed(f"cannot write {name}: {reason(error)}")
    done = (
        "created" if old is None else "replaced" if old != data else "unchanged, it was so already"
    )
    meta = Meta(before=None if old is None else digest(old), after=digest(data))
    return ToolResult(Outcome.OK, f"{name}: {done}, {len(data)} bytes{note}", meta)


def window(file: BinaryIO, offset: int, limit: int, room: int) -> Window:
    """The `limit` lines after the first `offset`, at most `room` bytes of them.

    Memory stays bounded whatever the length of the lines.
    """
    skipped = _skip(file, offset)
    lines: list[bytes] = []
    while len(lines) < limit and (line := file.readline(room + 1)):
        lines.append(_bare(line[:room]))
        cut = len(line) > room
        room -= len(line)
        if room <= 0:
            return Window(tuple(lines), skipped, cut or bool(file.read(1)), cut)
    return Window(tuple(lines), skipped, bool(file.read(1)), False)


def load(path: Path) -> bytes:
    """All bytes of a regular file. Raises OSError, BadPath also if it is over `EDIT_LIMIT`."""
    with paths.open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > encoding.EDIT_LIMIT:
            raise paths.BadPath(f"it has {size} bytes, over {encoding.EDIT_LIMIT}")
        return file.read(encoding.EDIT_LIMIT)


def replace(path: Path, data: bytes) -> None:
    """Put a file in place as a whole: readers see the old or the new one, a crash leaves either.

    Folders on the way are made, mode bits of an existing file kept. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".ratchet-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), _mode(path))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:  # also when cancelled: no temporary file stays behind
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def digest(data: bytes) -> str:
    """The digest of a file's bytes as the protocol writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def reason(error: Exception) -> str:
    """An error in words for the model, without this machine's inner paths."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)


def _existing(path: Path) -> bytes | None:
    try:
        return load(path)
    except FileNotFoundError:
        return None


def _styled(content: str, old: bytes | None) -> tuple[bytes, str]:
    """The new bytes, in the encoding and with the line ends that the old file had."""
    if not old:
        return content.encode(), ""
    style = encoding.detect(old)
    notes = [f"{style.codec} with a byte-order mark"] if style.mark else []
    if "\r" not in content and encoding.only_crlf(style.decode(old)):
        content = content.replace("\n", "\r\n")
        notes.append("CRLF line ends")
    return style.encode(content), f" ({', '.join(notes)} kept)" if notes else ""


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return NEW_FILE_MODE


def _skip(file: BinaryIO, count: int) -> int:
    """Pass over so many lines; how many there were."""
    passed = 0
    torn = False
    while passed < count and (piece := file.readline(_PIECE)):
        torn = not piece.endswith(b"\n")
        passed += not torn
    return passed + (torn and passed < count)


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _numbered(part: Window, offset: int) -> ToolResult:
    """The window as the model gets it, with what it must know to read on."""
    raw = [*part.lines[:-1], whole_end(part.lines[-1])] if part.cut else part.lines
    decoded = [decode(line) for line in raw]
    bad = any(bad for _, bad in decoded)
    after = offset + len(decoded)
    lines = [f"{n:>6}→{text}" for n, (text, _) in enumerate(decoded, start=offset + 1)]
    if part.cut:
        lines.append(f"[line {after} is too long and cut here; what follows it: offset {after}]")
    elif part.more:
        lines.append(f"[the file goes on: read with offset {after}]")
    elif not lines:
        lines.append(f"[the file has {part.skipped} lines]" if offset else "[the file is empty]")
    if bad:
        lines.append("[some bytes are no UTF-8 text; they are shown as \N{REPLACEMENT CHARACTER}]")
    meta = Meta(truncated=part.more or part.cut, not_utf8=bad)
    return ToolResult(Outcome.OK, "\n".join(lines), meta)
