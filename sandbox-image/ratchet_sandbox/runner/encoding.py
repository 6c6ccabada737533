"""Bytes of text files and back: byte-order marks, invalid bytes and line ends are kept. Pure."""

import io
from dataclasses import dataclass
from typing import BinaryIO, Final

EDIT_LIMIT: Final = 16 * 1024 * 1024
"""Largest file, in bytes, that is taken into memory as a whole."""

_MARKS: Final = (
    (b"\xff\xfe\0\0", "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


class TooLarge(Exception):
    """The file cannot be taken into memory; the message says what to do."""


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

    @property
    def name(self) -> str:
        """For a sentence: UTF-8, or UTF-16-LE and the like."""
        return self.codec.upper()

    def encode(self, text: str) -> bytes:
        """The reverse of `decode`."""
        errors = "surrogateescape" if self.codec == "utf-8" else "strict"
        return self.mark + text.encode(self.codec, errors)


PLAIN: Final = Encoding(b"", "utf-8")


def detect(start: bytes) -> Encoding:
    """By the byte-order mark; UTF-8 without one."""
    return next((Encoding(m, c) for m, c in _MARKS if start.startswith(m)), PLAIN)


def as_utf8(file: BinaryIO) -> tuple[BinaryIO, Encoding]:
    """The file's text as UTF-8 without a mark, from its start, and how it is written.

    What is no text in UTF-16 or UTF-32 is replaced; what is none in UTF-8 is left for the caller.
    Raises TooLarge for a file in UTF-16 or UTF-32 of over `EDIT_LIMIT` bytes.
    """
    encoding = detect(file.read(4))
    file.seek(len(encoding.mark))
    if encoding.codec == "utf-8":
        return file, encoding
    data = file.read(EDIT_LIMIT + 1)
    if len(data) > EDIT_LIMIT:
        raise TooLarge(
            f"it is {encoding.name} and over {EDIT_LIMIT} bytes: convert it with bash (iconv)"
        )
    return io.BytesIO(data.decode(encoding.codec, "replace").encode()), encoding


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
