"""Exit codes of `ratchet`, and what ends a command early."""

from __future__ import annotations

DONE, BROKEN, UNABLE = 0, 1, 2
"""Done; what is stored is not what was recorded; it cannot be done, and the sentence says why."""


class Failed(Exception):
    """The command cannot be carried out. The text is a sentence: what is the case, what to do."""

    def __init__(self, text: str, code: int = UNABLE) -> None:
        super().__init__(text)
        self.code = code
