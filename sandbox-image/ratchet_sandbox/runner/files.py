"""`read_file` and `write_file`."""

from dataclasses import dataclass
from typing import BinaryIO, Final

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.runner import encoding, paths, wholefile
from ratchet_sandbox.runner.arguments import named
from ratchet_sandbox.runner.encoding import Encoding
from ratchet_sandbox.runner.output import decode, whole_end
from ratchet_sandbox.runner.result import Arguments, Context, Late, ToolResult, Watch, failed
from ratchet_sandbox.runner.wholefile import FAULTS, Loaded, digest, reason

READ_LIMIT: Final = 64_000
"""Bytes of a file that one call gives."""
_DEFAULT_LINES: Final = 2000
_LINE_COST: Final = 20
"""What the shortest line counts for: it comes with its number."""
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
    name, offset = arguments["path"], arguments.get("offset", 0)
    limit = arguments.get("limit", _DEFAULT_LINES)
    try:
        path = paths.resolve(context.config.workspace, name)
        with paths.open_regular(path) as file:
            text, style = encoding.as_utf8(file)
            part = window(text, offset, limit, READ_LIMIT, context.watch())
    except Late as late:
        return failed(f"reading {named(name)} was given up: {late}")
    except FAULTS as error:
        return failed(f"cannot read {named(name)}: {reason(error)}")
    lines, meta = _numbered(part, offset, style)
    lines += context.guides.beside(context.config.workspace, path)
    return ToolResult(Outcome.OK, "\n".join(lines), meta)


def write_file(context: Context, arguments: Arguments) -> ToolResult:
    """Write a whole file; one that is there is replaced only with `overwrite`.

    The same content again is a success, so that a repeated call ends like the first one.
    """
    name, content = arguments["path"], arguments["content"]
    try:
        with paths.enter(context.config.workspace, name, make=True) as place:
            old = _existing(place)
            data, note = _styled(content, old.data if old else b"")
            same = old is not None and old.data == data
            if old is not None and not same and not arguments.get("overwrite"):
                return failed(
                    f"{named(name)} exists; nothing was written. Set overwrite to replace it."
                )
            if not same:
                wholefile.replace(place, data, old)
    except FAULTS as error:
        return failed(f"cannot write {named(name)}: {reason(error)}")
    done = "created" if old is None else "unchanged, it was so already" if same else "replaced"
    meta = Meta(before=digest(old.data) if old else None, after=digest(data))
    return ToolResult(Outcome.OK, f"{named(name)}: {done}, {len(data)} bytes{note}", meta)


def window(file: BinaryIO, offset: int, limit: int, room: int, watch: Watch) -> Window:
    """The `limit` lines after the first `offset`, at most `room` bytes of them.

    Memory stays bounded whatever the length of the lines. Raises Late.
    """
    skipped = _skip(file, offset, watch)
    lines: list[bytes] = []
    while len(lines) < limit and (line := file.readline(room + 1)):
        lines.append(_bare(line[:room]))
        cut = len(line) > room
        room -= max(len(line), _LINE_COST)
        if room <= 0:
            return Window(tuple(lines), skipped, cut or bool(file.read(1)), cut)
    return Window(tuple(lines), skipped, bool(file.read(1)), False)


def _existing(place: paths.Place) -> Loaded | None:
    try:
        return wholefile.load(place)
    except FileNotFoundError:
        return None


def _styled(content: str, old: bytes) -> tuple[bytes, str]:
    """The new bytes, in the encoding and with the line ends that the old file had."""
    if not old:
        return content.encode(), ""
    style = encoding.detect(old)
    notes = []
    if style.mark:
        notes.append(f"{style.name} with a byte-order mark")
        content = content.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    if "\r" not in content and encoding.only_crlf(old.decode(style.codec, "replace")):
        content = content.replace("\n", "\r\n")
        notes.append("CRLF line ends")
    return style.encode(content), f" ({', '.join(notes)} kept)" if notes else ""


def _skip(file: BinaryIO, count: int, watch: Watch) -> int:
    """Pass over so many lines; how many there were."""
    passed = 0
    torn = False
    while passed < count and (piece := file.readline(_PIECE)):
        watch()
        torn = not piece.endswith(b"\n")
        passed += not torn
    return passed + (torn and passed < count)


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _numbered(part: Window, offset: int, style: Encoding) -> tuple[list[str], Meta]:
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
    if style.codec != "utf-8":
        lines.append(f"[the file is written in {style.name}; changes by the file tools keep that]")
    meta = Meta(truncated=part.more or part.cut, not_utf8=bad or style.codec != "utf-8")
    return lines, meta
