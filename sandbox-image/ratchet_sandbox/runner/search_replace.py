"""`search_replace`: exact, unique, all or nothing. The parser and the matching are pure."""

import difflib
import re
from dataclasses import dataclass
from typing import Final

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.runner import encoding, files, paths
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed

_SEARCH: Final = re.compile(r"<{5,} ?SEARCH\s*")
_DIVIDE: Final = re.compile(r"={5,}\s*")
_REPLACE: Final = re.compile(r">{5,} ?REPLACE\s*")
_NUMBERED: Final = re.compile(r"\s*\d+→")
_NEAREST_LINES: Final = 20_000
"""Longest file, in lines, in which a nearest match is looked for."""
_SHAPE: Final = "<<<<<<< SEARCH\nold lines\n=======\nnew lines\n>>>>>>> REPLACE"


class BadBlocks(Exception):
    """The blocks cannot be read, or cannot be applied; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Block:
    """Text to be found, and text to stand there instead; without the last line's end."""

    search: str
    replace: str


def search_replace(context: Context, arguments: Arguments) -> ToolResult:
    """Apply all SEARCH/REPLACE blocks of `content` to a file, or none."""
    name = arguments["path"]
    try:
        blocks = parse(arguments["content"])
        path = paths.resolve(context.config.workspace, name)
        old = files.load(path)
        style = encoding.detect(old)
        text = style.decode(old)
        changed, lines = apply(text, blocks)
        new = style.encode(changed)
        if new != old:
            files.replace(path, new)
    except BadBlocks as error:
        return failed(f"{name} was not changed: {error}")
    except (OSError, paths.BadPath, UnicodeError) as error:
        return failed(f"cannot edit {name}: {files.reason(error)}")
    meta = Meta(
        before=files.digest(old), after=files.digest(new), not_utf8=not encoding.is_clean(text)
    )
    where = ", ".join(str(line) for line in lines)
    plural = "s" if len(blocks) > 1 else ""
    return ToolResult(
        Outcome.OK, f"{name}: {len(blocks)} block{plural} applied, at line {where}", meta
    )


def parse(content: str) -> list[Block]:
    """The blocks in a tool call's `content`. Raises BadBlocks.

    Text around the blocks, such as a code fence, is passed over. Markers count only where the
    block's form expects them, so that REPLACE text may hold a line of equals signs.
    """
    blocks: list[Block] = []
    search: list[str] | None = None
    new: list[str] | None = None
    for number, line in enumerate(content.replace("\r\n", "\n").split("\n"), start=1):
        if search is None:
            if _SEARCH.fullmatch(line):
                search = []
            elif _REPLACE.fullmatch(line):
                raise BadBlocks(f"line {number} of content ends a block that was not begun")
        elif new is None:
            if _SEARCH.fullmatch(line) or _REPLACE.fullmatch(line):
                raise BadBlocks(f"line {number} of content: expected ======= before this line")
            if _DIVIDE.fullmatch(line):
                new = []
            else:
                search.append(line)
        elif _REPLACE.fullmatch(line):
            blocks.append(Block("\n".join(search), "\n".join(new)))
            search = new = None
        elif _SEARCH.fullmatch(line):
            raise BadBlocks(f"line {number} of content: expected >>>>>>> REPLACE before this line")
        else:
            new.append(line)
    if search is not None:
        raise BadBlocks(f"block {len(blocks) + 1} has no end (>>>>>>> REPLACE)")
    if not blocks:
        raise BadBlocks(f"content holds no block. A block looks like this:\n{_SHAPE}")
    return blocks


def apply(text: str, blocks: list[Block]) -> tuple[str, list[int]]:
    """The text with all blocks applied in order, and the line each was applied at.

    A block is matched against the text as the blocks before it left it. Raises BadBlocks.
    """
    lines = []
    for number, block in enumerate(blocks, start=1):
        label = f"block {number}" if len(blocks) > 1 else "the block"
        at, search, new = _match(text, block, label)
        lines.append(text.count("\n", 0, at) + 1)
        text = text[:at] + new + text[at + len(search) :]
    return text, lines


def _match(text: str, block: Block, label: str) -> tuple[int, str, str]:
    """Where the block matches, with the search and replace text in the file's line ends."""
    if not block.search.strip("\n"):
        raise BadBlocks(f"{label} has an empty SEARCH; use write_file to make a whole file")
    for search, new in _line_ends(text, block):
        found = _occurrences(text, search)
        if len(found) > 1:
            where = ", ".join(str(text.count("\n", 0, at) + 1) for at in found[:10])
            raise BadBlocks(
                f"the SEARCH text of {label} occurs {len(found)} times, at lines {where}; "
                "add lines around it until it is unique"
            )
        if found:
            return _whole_lines(text, found[0], search, new)
    raise BadBlocks(f"the SEARCH text of {label} is not in the file.{_hint(text, block.search)}")


def _line_ends(text: str, block: Block) -> list[tuple[str, str]]:
    """The block as it is, and with CRLF where the file has them."""
    tries = [(block.search, block.replace)]
    if "\r\n" in text:
        tries.append((block.search.replace("\n", "\r\n"), block.replace.replace("\n", "\r\n")))
        if "\n" not in block.search:
            # One line without its end matches either way: new lines take the file's line ends.
            tries = tries[1:]
    return tries


def _whole_lines(text: str, at: int, search: str, new: str) -> tuple[int, str, str]:
    """An empty REPLACE for whole lines takes their last line end away too."""
    end = at + len(search)
    starts_line = at == 0 or text[at - 1] == "\n"
    if new or not starts_line:
        return at, search, new
    for line_end in ("\r\n", "\n"):
        if text.startswith(line_end, end):
            return at, search + line_end, new
    return at, search, new


def _occurrences(text: str, search: str) -> list[int]:
    found: list[int] = []
    at = text.find(search)
    while at >= 0 and len(found) < 1000:
        found.append(at)
        at = text.find(search, at + 1)
    return found


def _hint(text: str, search: str) -> str:
    """What may help to get the SEARCH text right: the nearest lines of the file."""
    wanted = search.split("\n")
    if all(_NUMBERED.match(line) for line in wanted if line):
        return " Leave out the line numbers that read_file shows."
    lines = text.replace("\r\n", "\n").split("\n")
    start = nearest(lines, wanted)
    if start is None:
        return " Read the file and copy the lines exactly."
    part = lines[start : start + len(wanted)]
    shown = "\n".join(f"{start + n:>6}→{line[:300]}" for n, line in enumerate(part[:30], start=1))
    same = [line.split() for line in part] == [line.split() for line in wanted]
    difference = " It differs in white space only." if same else ""
    return f" The nearest text, at line {start + 1}:{difference}\n{shown}"


def nearest(lines: list[str], wanted: list[str]) -> int | None:
    """Index of the first line of the part most like the wanted lines; None if nothing is."""
    if len(lines) > _NEAREST_LINES:
        return None
    anchor = max(wanted, key=lambda line: len(line.strip()))
    inner = wanted.index(anchor)
    close = difflib.get_close_matches(anchor.strip(), {line.strip() for line in lines}, 3, 0.6)
    starts = [i - inner for i, line in enumerate(lines) if line.strip() in close and i >= inner]
    return max(starts[:50], key=lambda start: _likeness(lines, wanted, start), default=None)


def _likeness(lines: list[str], wanted: list[str], start: int) -> float:
    part = lines[start : start + len(wanted)]
    pairs = zip(part[:30], wanted[:30], strict=False)
    return sum(difflib.SequenceMatcher(None, a[:300], b[:300]).ratio() for a, b in pairs)
