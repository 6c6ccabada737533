"""`search_replace`: exact, unique, all or nothing. The matching is pure."""

from typing import Final

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.runner import encoding, paths, wholefile
from ratchet_sandbox.runner.arguments import named
from ratchet_sandbox.runner.blocks import BadBlocks, Block, parse
from ratchet_sandbox.runner.nearest import hint
from ratchet_sandbox.runner.result import Arguments, Context, Late, ToolResult, Watch, failed

_MOST_FOUND: Final = 1000


def search_replace(context: Context, arguments: Arguments) -> ToolResult:
    """Apply all SEARCH/REPLACE blocks of `content` to a file, or none."""
    name = arguments["path"]
    try:
        blocks = parse(arguments["content"])
        with paths.enter(context.config.workspace, name) as place:
            old = wholefile.load(place)
            style = encoding.detect(old.data)
            text = style.decode(old.data)
            changed, lines = apply(text, blocks, context.watch())
            new = style.encode(changed)
            if new != old.data:
                wholefile.replace(place, new, old)
    except (BadBlocks, Late) as error:
        return failed(f"{named(name)} was not changed: {error}")
    except wholefile.FAULTS as error:
        return failed(f"cannot edit {named(name)}: {wholefile.reason(error)}")
    meta = Meta(
        before=wholefile.digest(old.data),
        after=wholefile.digest(new),
        not_utf8=style.codec != "utf-8" or not encoding.is_clean(text),
    )
    where = ", ".join(str(line) for line in lines)
    plural = "s" if len(blocks) > 1 else ""
    return ToolResult(
        Outcome.OK, f"{named(name)}: {len(blocks)} block{plural} applied, at line {where}", meta
    )


def apply(text: str, blocks: list[Block], watch: Watch = lambda: None) -> tuple[str, list[int]]:
    """The text with all blocks applied in order, and the line each was applied at.

    A block is matched against the text as the blocks before it left it. Raises BadBlocks, Late.
    """
    lines = []
    for number, block in enumerate(blocks, start=1):
        watch()
        label = f"block {number}" if len(blocks) > 1 else "the block"
        at, end, new = _match(text, block, label)
        lines.append(text.count("\n", 0, at) + 1)
        text = text[:at] + new + text[end:]
    return text, lines


def _match(text: str, block: Block, label: str) -> tuple[int, int, str]:
    """Where the block matches, from and to, and the new text in the line ends of that place.

    A line end of the block stands for either kind, as read_file shows none of them.
    """
    if not block.search.strip("\n"):
        raise BadBlocks(f"{label} has an empty SEARCH; use write_file to make a whole file")
    crlf = "\r\n" in text
    plain = text.replace("\r\n", "\n") if crlf else text
    found = _occurrences(plain, block.search)
    if not found:
        raise BadBlocks(f"the SEARCH text of {label} is not in the file.{hint(plain, block)}")
    if len(found) > 1:
        where = ", ".join(str(plain.count("\n", 0, at) + 1) for at in found[:10])
        times = f"{len(found)} times" if len(found) < _MOST_FOUND else "very often"
        raise BadBlocks(
            f"the SEARCH text of {label} occurs {times}, at lines {where}"
            f"{', ...' if len(found) > 10 else ''}; add lines around it until it is unique"
        )
    at, end = found[0], _whole_lines(plain, found[0], block)
    if not crlf:
        return at, end, block.replace
    at, end = _before(text, plain, at), _before(text, plain, end)
    return at, end, block.replace.replace("\n", _line_end(text, at))


def _whole_lines(text: str, at: int, block: Block) -> int:
    """Where the match ends; an empty REPLACE for whole lines takes their last line end too."""
    end = at + len(block.search)
    starts_line = at == 0 or text[at - 1] == "\n"
    whole = starts_line and not block.search.endswith("\n") and text.startswith("\n", end)
    return end + (whole and not block.replace)


def _before(text: str, plain: str, at: int) -> int:
    """The place in the text that a place in its plain form, without CRLF, means."""
    ends = plain.count("\n", 0, at)
    start = 0
    for _ in range(ends):
        start = text.index("\n", start) + 1
    return start + at - (plain.rfind("\n", 0, at) + 1)


def _line_end(text: str, at: int) -> str:
    """The kind of the line end nearest to this place: the next one, else the last."""
    found = text.find("\n", at)
    if found < 0:
        found = text.rfind("\n", 0, at)
    return "\r\n" if found > 0 and text[found - 1] == "\r" else "\n"


def _occurrences(text: str, search: str) -> list[int]:
    found: list[int] = []
    at = text.find(search)
    while at >= 0 and len(found) < _MOST_FOUND:
        found.append(at)
        at = text.find(search, at + 1)
    return found
