"""Bytes of text files and back: byte-order marks, invalid bytes and line ends are kept. Pure."""

import io
from dataclasses import dataclass
from typing import BinaryIO, Final

EDIT_LIMIT: Final = 16 * 1024 * 1024
"""Largest file, in bytes, that is taken into memory as a whole."""

_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file's text is written: a byte-order mark, maybe none, and a codec."""

    mark: bytes
    codec: str

    def decode(self, data: bytes) -> str:
        """The text without the mark. Invalid UTF-8 becomes lone surrogates, which `encode`
        turns back into the same bytes."""
        body = data[len(self.mark) :]
        errors = "surrogateescape" if self.codec == "utf-8" else "strict"
        return body.decode(self.codec, errors)

    def encode(self, text: str) -> bytes:
        """The reverse of `decode`."""
        errors = "surrogateescape" if self.codec == "utf-8" else "strict"
        return self.mark + text.encode(self.codec, errors)


PLAIN: Final = Encoding(b"", "utf-8")


def detect(start: bytes) -> Encoding:
    """By the byte-order mark; UTF-8 without one."""
    return next((Encoding(m, c) for m, c in _MARKS if start.startswith(m)), PLAIN)


def as_utf8(file: BinaryIO) -> BinaryIO:
    """The file's text as UTF-8 without a mark, from its start. Raises UnicodeError for a broken
    UTF-16 file; of a UTF-16 file at most `EDIT_LIMIT` bytes are taken."""
    encoding = detect(file.read(3))
    file.seek(len(encoding.mark))
    if encoding.codec == "utf-8":
        return file
    file.seek(0)
    return io.BytesIO(encoding.decode(file.read(EDIT_LIMIT)).encode())


def only_crlf(text: str) -> bool:
    """Whether the text has line ends and all of them are CRLF."""
    return "\n" in text and text.count("\n") == text.count("\r\n")


def is_clean(text: str) -> bool:
    """Whether no byte of the file had to be kept as a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
