"""The one-time word: a runner reads it from the control volume and says it in its hello.

The user's commands can read the volume too and imitate their own runner, which hurts only
their own task. The word keeps everything else on the pod's loopback address out.
"""

import hmac
import os
import secrets
from pathlib import Path


class ControlWord:
    """The current word and its file. A word is good for one hello, right or wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._word: str | None = None

    def renew(self) -> None:
        """Write a new word; readers see the old file or the new one, never half of one."""
        word = secrets.token_hex(32)
        beside = self._path.with_name(self._path.name + ".new")
        beside.unlink(missing_ok=True)
        # 0640: the runner has another uid and reads by the volume's group (fsGroup).
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        with open(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o640)
            file.write(word)
        beside.rename(self._path)
        self._word = word

    def spend(self, word: str) -> bool:
        """Whether this is the current word. Whatever the answer, the word is used up."""
        current, self._word = self._word, None
        self.renew()
        return current is not None and hmac.compare_digest(current.encode(), word.encode())
