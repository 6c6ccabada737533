"""How much of a text is kept. Pure, and the same for everyone who cuts the same text.

Bounds are there so that the API server takes every record: a task is never stuck because
something in it is too large.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ratchet.core.keys import clean

_LONG = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f<>&\u2028\u2029]")
"""Characters that take six bytes in the JSON of Go's encoding/json, in which objects are stored."""
_SHORT = re.compile('["\\\\\n\r\t]')
"""Characters that take two there."""


def cut(text: str, limit: int, hint: str = "") -> str:
    """The text within `limit` bytes of clean UTF-8: head and tail, and a line that says what is gone.

    `hint` is a sentence for that line.
    """
    data = clean(text).encode("utf-8")
    if len(data) <= limit:
        return data.decode("utf-8")
    marker = f"\n[... {len(data) - limit + 64} bytes cut{hint and f'; {hint}'} ...]\n"
    half = max(0, (limit - len(marker.encode())) // 2)
    head = data[:half].decode("utf-8", "ignore")
    tail = data[len(data) - half :].decode("utf-8", "ignore")
    return head + marker + tail


def stored_size(text: str) -> int:
    """Bytes that a text takes where it is stored, escapes included; never less than its UTF-8."""
    return (
        len(text.encode("utf-8", "replace"))
        + 5 * len(_LONG.findall(text))
        + len(_SHORT.findall(text))
    )


def cut_to_store(text: str, limit: int, hint: str = "") -> str:
    """The text within `limit` bytes as `stored_size` counts them, cut as `cut` does.

    The line that says what is gone stays, even where it alone is longer than `limit`.
    """
    if stored_size(text) <= limit:
        return text
    bound = limit
    while (size := stored_size(short := cut(text, bound, hint))) > limit and bound > 0:
        bound = min(bound - 1, bound * limit // size)
    return short


def share_out(sizes: Sequence[int], budget: int) -> list[int]:
    """How much each may have of a budget: what is small is kept whole, the large share the rest."""
    shares = list(sizes)
    left, waiting = budget, sorted(range(len(sizes)), key=lambda i: sizes[i])
    while waiting:
        smallest, equal = waiting[0], left // len(waiting)
        if sizes[smallest] > equal:
            for i in waiting:
                shares[i] = equal
            return shares
        left -= sizes[smallest]
        waiting.pop(0)
    return shares
