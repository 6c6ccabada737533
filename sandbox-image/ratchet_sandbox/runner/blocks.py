"""The SEARCH/REPLACE blocks of a tool call. Pure."""

import re
from dataclasses import dataclass
from typing import Final

_OPEN: Final = re.compile(r"(<{5,}) ?SEARCH\s*")
_DIVIDE: Final = re.compile(r"(={5,})\s*")
_CLOSE: Final = re.compile(r"(>{5,}) ?REPLACE\s*")
_SHAPE: Final = "<<<<<<< SEARCH\nold lines\n=======\nnew lines\n>>>>>>> REPLACE"


class BadBlocks(Exception):
    """The blocks cannot be read, or cannot be applied; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Block:
    """Text to be found, and text to stand there instead; without the last line's end."""

    search: str
    replace: str


def parse(content: str) -> list[Block]:
    """The blocks in a tool call's `content`. Raises BadBlocks.

    Text around the blocks, such as a code fence, is passed over. Where the markers of every block
    are of one length, a shorter one, and a line of equals signs of any other length, is text: so
    a block with longer markers can hold any text. Else markers of all lengths count.
    """
    lines = content.replace("\r\n", "\n").split("\n")
    try:
        return _read(lines, strict=True)
    except BadBlocks:
        return _read(lines, strict=False)


def _read(lines: list[str], *, strict: bool) -> list[Block]:
    blocks: list[Block] = []
    opened: int | None = None
    divided: int | None = None
    width = 0
    for number, line in enumerate(lines):
        opens, closes = _width(_OPEN, line), _width(_CLOSE, line)
        if opened is None:
            if opens:
                opened, divided, width = number, None, opens
            elif closes:
                raise BadBlocks(f"line {number + 1} of content ends a block that was not begun")
            continue
        if strict and max(opens, closes) < width:
            opens = closes = 0
        divides = _width(_DIVIDE, line)
        if opens or (closes and divided is None):
            wanted = "=======" if divided is None else ">>>>>>> REPLACE"
            raise BadBlocks(f"line {number + 1} of content: expected {wanted} before this line")
        if strict and closes > width:
            raise BadBlocks(f"line {number + 1} of content: its marker is longer than the block's")
        if closes and divided is not None:
            search, replace = lines[opened + 1 : divided], lines[divided + 1 : number]
            blocks.append(Block("\n".join(search), "\n".join(replace)))
            opened = None
        elif divided is None and divides and (divides == width or not strict):
            divided = number
    if opened is not None:
        raise BadBlocks(f"block {len(blocks) + 1} has no end (>>>>>>> REPLACE)")
    if not blocks:
        raise BadBlocks(f"content holds no block. A block looks like this:\n{_SHAPE}")
    return blocks


def _width(marker: re.Pattern[str], line: str) -> int:
    """How long the marker is that this line is; 0 if it is none."""
    found = marker.fullmatch(line)
    return len(found[1]) if found else 0
