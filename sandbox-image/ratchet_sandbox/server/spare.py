"""Room on the ledger's volume that is kept back, for the day on which the volume is full.

Where workspace and ledger share a claim, a command can fill both. Without a spare no call could be
written down any more, and so none could run that makes room again.
"""

import os
from pathlib import Path
from typing import Final

SPARE_BYTES: Final = 4 * 1024 * 1024


class Spare:
    """A file that holds the room, and is deleted to give it back."""

    def __init__(self, path: Path, size: int = SPARE_BYTES) -> None:
        self._path = path
        self._size = size
        self._there = False

    def fill(self) -> None:
        """Keep the room back, where there is as much; else another time."""
        if self._there:
            return
        descriptor = -1
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.posix_fallocate(descriptor, 0, self._size)
            self._there = True
        except OSError:
            self.spend()
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def spend(self) -> bool:
        """Give the room back; False if there was none."""
        self._there = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
