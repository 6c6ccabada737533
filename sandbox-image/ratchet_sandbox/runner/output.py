"""A command's output, bounded while it is read: head, tail, and a spill file for the middle.

Everything is always read, so that no command blocks on a full pipe; only so much is kept.
Each read is small and done by the event loop, so a flood cannot keep a timer from firing.
"""

import array
import asyncio
import fcntl
import os
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INLINE_LIMIT: Final = 30_000
SPILL_LIMIT: Final = 4 * 1024 * 1024
_CHUNK: Final = 64 * 1024
_LATER_S: Final = 0.05
"""How long a left-over writer waits between two reads: it may go on, but not flood."""


@dataclass(frozen=True, slots=True)
class Text:
    """The output as the model gets it."""

    content: str
    truncated: bool
    spill: Path | None
    not_utf8: bool


class Capture:
    """Takes bytes in order, keeps `limit` of them, and writes the whole to `spill` if they do
    not fit (up to `spill_limit`). The spill file exists only then."""

    def __init__(
        self, spill: Path, *, limit: int = INLINE_LIMIT, spill_limit: int = SPILL_LIMIT
    ) -> None:
        self.size = 0
        """Bytes since the last `take`."""
        self.total = 0
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._spill = spill
        self._spill_left = spill_limit
        self._spilled: int | None = None
        self._failure: str | None = None
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._spilled is None and self.size + len(data) > 2 * self._half:
            self._open()
        self._write(data)
        self.size += len(data)
        self.total += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: max(len(self._tail) - self._half, 0)]

    def close(self) -> None:
        """No more bytes will come."""
        self._closed = True
        self._shut()

    def _shut(self) -> None:
        if self._spilled is not None and self._spilled >= 0:
            os.close(self._spilled)
            self._spilled = -1

    def take(self) -> Text:
        """What came since the last time, cut in the middle if it was too much.

        The beginning of a character whose end is still to come waits for the next time.
        """
        rest = b"" if self._closed else self._unfinished()
        text = self.text()
        self._head, self._tail, self.size = bytearray(rest), bytearray(), len(rest)
        if self._spill_left <= 0 and self._failure is None:
            self._failure = "the file for this command's output is full"
        return text

    def _unfinished(self) -> bytes:
        """Take off the end of what is kept if a character is cut there."""
        if self.size == len(self._head) + len(self._tail):
            self._head, self._tail = self._head + self._tail, bytearray()
        last = self._tail or self._head
        rest = bytes(last[len(whole_end(bytes(last))) :])
        del last[len(last) - len(rest) :]
        self.size -= len(rest)
        return rest

    def text(self) -> Text:
        """What came since the last `take`, cut in the middle if it was too much."""
        first, last = bytes(self._head), bytes(self._tail)
        if self.size == len(first) + len(last):
            content, bad = decode(first + last)
            if len(content.encode()) <= 2 * self._half:
                return Text(content, False, None, bad)
            self._keep_whole()
            first, last = _halves(first + last)
        first = _fitting(whole_end(first), self._half)
        last = _fitting(_whole_start(last), self._half, at_end=True)
        (head, bad_head), (tail, bad_tail) = decode(first), decode(last)
        mark = self._mark(self.size - len(first) - len(last))
        spill = None if self._failure else self._spill
        return Text(f"{head}\n{mark}\n{tail}", True, spill, bad_head or bad_tail)

    def _keep_whole(self) -> None:
        """Write what fits as it came, and would not as it is shown."""
        if self._spilled is None:
            self._open()
            if self._closed:
                self._shut()

    def _mark(self, cut: int) -> str:
        if self._failure:
            return f"[{cut} bytes left out here; they could not be kept: {self._failure}]"
        kept = "all of it" if self._spill_left > 0 else "its beginning"
        return f"[{cut} bytes left out here; {kept} is in {self._spill}]"

    def _open(self) -> None:
        try:
            self._spill.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._spilled = os.open(self._spill, flags, 0o664)
        except OSError as error:
            self._failure = error.strerror or str(error)
            self._spilled = -1
        self._write(bytes(self._head + self._tail))

    def _write(self, data: bytes) -> None:
        if self._spilled is None or self._spilled < 0 or self._spill_left <= 0:
            return
        piece = data[: self._spill_left]
        try:
            os.write(self._spilled, piece)
        except OSError as error:  # disk full: the command goes on, the model is told
            self._failure = error.strerror or str(error)
            self._shut()
        self._spill_left -= len(piece)


class Pump:
    """Reads a FIFO into a capture, and goes on reading to nowhere when the call has ended.

    A background process keeps the FIFO open after its call. Closing it would kill that process
    at its next line of output (SIGPIPE), and leaving it unread would block it.
    """

    def __init__(self, path: Path, capture: Capture) -> None:
        self._capture: Capture | None = capture
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.add_reader(self._descriptor, self._read)

    @property
    def open(self) -> bool:
        """Whether somebody may still write."""
        return self._descriptor is not None

    def end_call(self) -> None:
        """Take what has been written until now; what comes later belongs to no call."""
        left = self._waiting()
        while left > 0 and (data := self._take(min(left, _CHUNK))):
            left -= len(data)
        self._capture = None

    def close(self) -> None:
        """Stop reading."""
        if self._timer:
            self._timer.cancel()
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> None:
        self._take(_CHUNK)
        if self._capture is None and self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._timer = self._loop.call_later(_LATER_S, self._again)

    def _again(self) -> None:
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._read)

    def _take(self, count: int) -> bytes:
        if self._descriptor is None:
            return b""
        try:
            data = os.read(self._descriptor, count)
        except BlockingIOError:
            return b""
        if not data:
            self.close()
        elif self._capture is not None:
            self._capture.feed(data)
        return data

    def _waiting(self) -> int:
        if self._descriptor is None:
            return 0
        count = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, count)
        return count[0]


def decode(data: bytes) -> tuple[str, bool]:
    """The bytes as clean text, and whether something in them was no UTF-8 text."""
    try:
        text, bad = data.decode(), False
    except UnicodeDecodeError:
        text, bad = data.decode(errors="replace"), True
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}"), bad or b"\0" in data


def _halves(data: bytes) -> tuple[bytes, bytes]:
    return data[: len(data) // 2], data[len(data) // 2 :]


def _fitting(data: bytes, room: int, *, at_end: bool = False) -> bytes:
    """The beginning, or the end, whose text takes no more than `room` bytes.

    A byte that is no text is shown by three (U+FFFD).
    """
    while (size := len(decode(data)[0].encode())) > room:
        kept = len(data) * room // size
        data = data[len(data) - kept :] if at_end else data[:kept]
    return data


def whole_end(data: bytes) -> bytes:
    """Without a character that was cut at the end (at most 3 bytes of one)."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data if length <= back else data[:-back]
    return data


def _whole_start(data: bytes) -> bytes:
    """Without the rest of a character that was cut at the start."""
    start = 0
    while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]
