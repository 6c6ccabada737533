"""The input of a command: a pseudo-terminal that echoes nothing and controls nobody.

Each command has its own, so that nothing typed for one is read by the next. It is line by line
(canonical, termios(3)): a reader sees the end of its input at Ctrl-D, and a line has at most 4095
bytes. It makes no signals; the runner sends those itself.
"""

import asyncio
import os
import termios
from typing import Final

from ratchet_sandbox.runner.output import Capture

LINE_LIMIT: Final = 4095
"""Bytes of one line, the newline included (N_TTY_BUF_SIZE of Linux is 4096)."""
WAITING_LIMIT: Final = 64 * 1024
"""Bytes that may wait for the command to read them."""
END_OF_INPUT: Final = b"\x04"
NONE: Final = "/dev/null"
_CHUNK: Final = 16 * 1024
_DISABLED: Final = b"\0"
"""_POSIX_VDISABLE of Linux."""


class Terminal:
    """The input of one command; `path` is NONE where the system gives no pseudo-terminal."""

    def __init__(self, shown: Capture) -> None:
        """`shown` takes what the command writes to its input, as a screen would."""
        self._shown = shown
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._ends: tuple[int, int] | None = None
        self.path = NONE
        try:
            self._ends = os.openpty()
            self.path = self._arrange(*self._ends)
        except (OSError, termios.error):
            self.close()

    def _arrange(self, master: int, slave: int) -> str:
        settings = termios.tcgetattr(slave)
        settings[0], settings[1] = 0, 0  # no translation in either direction
        settings[3] = termios.ICANON
        settings[6] = [_DISABLED] * len(settings[6])
        settings[6][termios.VEOF] = END_OF_INPUT
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        path = os.ttyname(slave)
        os.close(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        os.set_blocking(master, False)
        self._loop.add_reader(master, self._read)
        return path

    @property
    def there(self) -> bool:
        """Whether a command can be typed into."""
        return self._ends is not None

    def type(self, data: bytes) -> str:
        """Give bytes to the command to read. What is wrong with them; empty if nothing is."""
        if any(len(line) >= LINE_LIMIT for line in data.split(b"\n")):
            return f"a line has at most {LINE_LIMIT} bytes; write a file and redirect it instead"
        if len(self._waiting) + len(data) > WAITING_LIMIT:
            return "the command does not read what was typed before"
        self._waiting += data
        self._write()
        return ""

    def forget(self) -> None:
        """Throw away what was typed and not read, as Ctrl-C does."""
        self._waiting.clear()
        if self._ends:
            termios.tcflush(self._ends[1], termios.TCIFLUSH)

    def close(self) -> None:
        """Nothing more will be typed: whoever still reads sees the end."""
        if self._ends is None:
            return
        master, slave = self._ends
        self._ends, self.path = None, NONE
        self._loop.remove_reader(master)
        self._loop.remove_writer(master)
        os.close(master)
        os.close(slave)

    def _write(self) -> None:
        if self._ends is None:
            return
        master = self._ends[0]
        try:
            del self._waiting[: os.write(master, self._waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self._waiting.clear()
        if self._waiting:
            self._loop.add_writer(master, self._write)
        else:
            self._loop.remove_writer(master)

    def _read(self) -> None:
        if self._ends is None:
            return
        try:
            self._shown.feed(os.read(self._ends[0], _CHUNK))
        except BlockingIOError:
            return
        except OSError:
            self.close()
