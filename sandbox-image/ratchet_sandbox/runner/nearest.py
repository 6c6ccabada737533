"""What may help a model whose SEARCH text is not in the file. Pure, and of bounded cost.

The lines of the search that are in the file, white space aside, vote for a place. Only where
none is, likeness is measured, and only of the longest line with the few lines most like it by a
cheap measure: a full comparison takes the square of the length (difflib).
"""

import difflib
import heapq
import re
from collections import Counter
from typing import Final

from ratchet_sandbox.runner.blocks import Block

_NUMBERED: Final = re.compile(r"\s*\d+→")
_FUZZY_LINES: Final = 20_000
"""Longest file, in lines, in which likeness is measured."""
_VOTERS: Final = 20
"""Lines of the search that vote, the longest ones."""
_PLACES: Final = 200
"""Places that one voter may name."""
_COMPARED: Final = 50
"""Lines that are compared in full."""
_WIDTH: Final = 200
"""Characters of a line that count."""
_LIKE: Final = 0.6
"""From here on two lines are alike (the default of difflib.get_close_matches)."""
_SHOWN: Final = 30


def hint(text: str, block: Block) -> str:
    """Sentences about what is in the file instead. The text has no CRLF."""
    wanted = block.search.split("\n")
    if all(_NUMBERED.match(line) for line in wanted if line):
        return " Leave out the line numbers that read_file shows."
    if block.replace.strip() and block.replace in text:
        line = text.count("\n", 0, text.index(block.replace)) + 1
        return f" The REPLACE text is, at line {line}: the change may have been made before."
    lines = text.split("\n")
    start = nearest(lines, wanted)
    if start is None:
        return " Read the file and copy the lines exactly."
    return f" The nearest text, at line {start + 1}:{_difference(lines, wanted, start)}"


def nearest(lines: list[str], wanted: list[str]) -> int | None:
    """Index of the first line of the part most like the wanted lines; None if nothing is."""
    start = _elected(lines, wanted)
    if start is None and len(lines) <= _FUZZY_LINES:
        start = _alike(lines, wanted)
    return start


def _elected(lines: list[str], wanted: list[str]) -> int | None:
    """The start that most wanted lines stand for."""
    order = sorted(range(len(wanted)), key=lambda i: -len(wanted[i].strip()))
    voters = [(i, wanted[i].strip()) for i in order[:_VOTERS] if len(wanted[i].strip()) > 1]
    places: dict[str, list[int]] = {line: [] for _, line in voters}
    for index, line in enumerate(lines):
        found = places.get(line.strip())
        if found is not None and len(found) < _PLACES:
            found.append(index)
    votes = Counter(
        place - inner for inner, line in voters for place in places[line] if place >= inner
    )
    return max(votes, key=lambda start: (votes[start], -start), default=None)


def _alike(lines: list[str], wanted: list[str]) -> int | None:
    """The start by the line that is most like the longest wanted one."""
    inner = max(range(len(wanted)), key=lambda i: len(wanted[i].strip()))
    matcher = difflib.SequenceMatcher(b=wanted[inner].strip()[:_WIDTH], autojunk=False)

    def roughly(line: str) -> float:
        matcher.set_seq1(line)
        return matcher.quick_ratio() if matcher.real_quick_ratio() >= _LIKE else 0.0

    def exactly(line: str) -> float:
        matcher.set_seq1(line)
        return matcher.ratio()

    places = {line.strip()[:_WIDTH]: i for i, line in reversed([*enumerate(lines)]) if i >= inner}
    likely = heapq.nlargest(_COMPARED, places, key=roughly)
    best = max(likely, key=exactly, default=None)
    if best is None or exactly(best) < _LIKE:
        return None
    return places[best] - inner


def _difference(lines: list[str], wanted: list[str], start: int) -> str:
    """The lines there, and where they begin to differ."""
    part = lines[start : start + len(wanted)]
    shown = "\n".join(
        f"{start + n:>6}→{line[:_WIDTH]}" for n, line in enumerate(part[:_SHOWN], start=1)
    )
    if [line.split() for line in part] == [line.split() for line in wanted]:
        return f" It differs in white space only.\n{shown}"
    same = next((i for i, (a, b) in enumerate(zip(part, wanted, strict=False)) if a != b), 0)
    if same == 0:
        return f"\n{shown}"
    return f" It differs from line {start + same + 1} on.\n{shown}"
