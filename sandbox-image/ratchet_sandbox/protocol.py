"""The words that the sandbox's server and its runner share. Standard library only.

The two sides talk over one loopback TCP connection, which the runner dials. A message is one
JSON object on one line, ``{"type": "run", ...}``, UTF-8, at most `LINE_LIMIT` bytes with its
newline. The messages themselves are in `messages` and can be imported from here; here live the codec
and every constant that both sides need.

Rule: nothing in this module does I/O, and `decode` never raises anything but `ProtocolError`.
Field names are snake_case in Python and camelCase on the wire.
"""

import dataclasses
import hashlib
import json
import re
import types
import typing
from typing import Any, Final, Union

from ratchet_sandbox.messages import (
    RUNNER_OUTCOMES,
    Ack,
    Cancel,
    Diff,
    Digest,
    Digests,
    Error,
    File,
    FromRunner,
    FromServer,
    Hello,
    Message,
    Meta,
    Outcome,
    Patch,
    Read,
    Resend,
    Result,
    Run,
    Started,
    Welcome,
)

__all__ = [
    "RUNNER_OUTCOMES",
    "Ack",
    "Cancel",
    "Diff",
    "Digest",
    "Digests",
    "Error",
    "File",
    "FromRunner",
    "FromServer",
    "Hello",
    "Message",
    "Meta",
    "Outcome",
    "Patch",
    "Read",
    "Resend",
    "Result",
    "Run",
    "Started",
    "Welcome",
]

PROTOCOL: Final = 1
"""Version of the messages; a `Hello` with another one is refused."""

# Where things are. operator/ratchet/build repeats the ones that a pod names; a test compares them.
HTTPS_PORT: Final = 8443
RUNNER_HOST: Final = "127.0.0.1"
RUNNER_PORT: Final = 8701
SERVER_UID: Final = 10001
RUNNER_UID: Final = 10000
SHARED_GID: Final = 10000
WORKSPACE: Final = "/workspace"
RUNTIME_DIR: Final = "/ratchet/runtime"
FILES_DIR: Final = "/ratchet/files"
FILES_INDEX: Final = "/ratchet/files/index.json"
CONTROL_DIR: Final = "/ratchet/control"
WORD_FILE: Final = "/ratchet/control/word"
LEDGER_FILE: Final = "/ratchet/ledger/ledger.db"
SECRET_DIR: Final = "/ratchet/secret"
KEPT_DIR: Final = "/ratchet/kept"
"""Folder of a workspace's claim that `prepare` keeps things in; only there is it mounted."""
BASE_REPOSITORY: Final = "/ratchet/runtime/base.git"
GIT_SECRET_DIR: Final = "/ratchet/git"
"""Mounted in the container that clones, and in no other."""
GIT_SCRATCH_DIR: Final = "/ratchet/scratch"
"""Folder in memory of the same container."""

# How much of anything there may be, in bytes unless the name says otherwise.
LINE_LIMIT: Final = 8 * 1024 * 1024
HELLO_LIMIT: Final = 256 * 1024
"""Longest line from a peer that has not yet proved itself."""
CONTENT_LIMIT: Final = 100 * 1024
ARGUMENTS_LIMIT: Final = 64 * 1024
PATCH_LIMIT: Final = 5 * 1024 * 1024
FILE_LIMIT: Final = 1024 * 1024
PATH_LIMIT: Final = 4096
TEXT_LIMIT: Final = 1024
"""Longest id, code or sentence in a message."""
KEYS_LIMIT: Final = 1000
"""Most keys that a `Hello` may list."""
WAIT_LIMIT_S: Final = 25.0

CHECKED_TOOLS: Final = frozenset({"search_replace"})
"""Tools whose effect can be seen afterwards: the server asks for the file's digest first."""


class ProtocolError(Exception):
    """A line that is no message: torn, too long, of an unknown type, or of wrong types."""


# --- codec ----------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """One line with its newline. Raises `ProtocolError` if it is longer than `LINE_LIMIT`."""
    value = {"type": type(message).__name__.lower(), **_to_wire(message)}
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    data = clean(line).encode() + b"\n"
    if len(data) > LINE_LIMIT:
        raise ProtocolError(f"message {value['type']!r} has {len(data)} bytes, over {LINE_LIMIT}")
    return data


def decode_from_runner(line: bytes) -> FromRunner:
    """The message a runner sent. Raises `ProtocolError` for anything else."""
    return typing.cast(FromRunner, _decode(line, _RUNNER_TYPES))


def decode_from_server(line: bytes) -> FromServer:
    """The message the server sent. Raises `ProtocolError` for anything else."""
    return typing.cast(FromServer, _decode(line, _SERVER_TYPES))


def clean(text: str) -> str:
    """The text as valid UTF-8 can hold it: lone surrogates become U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clip(text: str, limit: int, mark: str) -> tuple[str, bool]:
    """Head and tail of `text` with `mark` between, at most `limit` bytes of UTF-8; was it cut?

    `mark` may contain ``{cut}``, which becomes the number of bytes left out.
    """
    data = text.encode()
    if len(data) <= limit:
        return text, False
    room = limit - len(mark.encode()) - len(str(len(data)))
    half = max(room, 0) // 2
    head = data[:half].decode(errors="ignore")
    tail = data[len(data) - half :].decode(errors="ignore") if half else ""
    cut = len(data) - len(head.encode()) - len(tail.encode())
    return head + mark.replace("{cut}", str(cut)) + tail, True


_KEY = re.compile(r"[A-Za-z0-9-]{1,64}/[1-9][0-9]{0,8}/(?:0|[1-9][0-9]{0,8})(?:/r[1-9][0-9]{0,8})?")


def is_key(text: str) -> bool:
    """Whether this is a call's key: ``<task uid>/<turn>/<index>`` or ``.../r<k>``."""
    return _KEY.fullmatch(text) is not None


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether this is ``sha256:`` and 64 hex digits."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(tool: str, arguments: str) -> str:
    """Digest of a call: ``sha256:<hex>`` of the tool's name, a newline and the JSON text."""
    return "sha256:" + hashlib.sha256(f"{tool}\n{arguments}".encode()).hexdigest()


def _decode(line: bytes, kinds: dict[str, type[Message]]) -> Message:
    if len(line) > LINE_LIMIT:
        raise ProtocolError(f"line has {len(line)} bytes, over {LINE_LIMIT}")
    try:
        value = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a line of JSON ({len(line)} bytes): {error}") from error
    kind = kinds.get(str(value.get("type"))) if isinstance(value, dict) else None
    if kind is None:
        raise ProtocolError(f"not a known message ({len(line)} bytes)")
    return typing.cast(Message, _from_wire(kind, value))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _field(f: "dataclasses.Field[Any]") -> tuple[str, str, Any, bool]:
    """(name, wire name, type, required) of a field of a message."""
    required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    return f.name, _camel(f.name), f.type, required


def _to_wire(message: Any) -> dict[str, Any]:
    return {wire: _plain(getattr(message, name)) for name, wire, _, _ in _FIELDS[type(message)]}


def _plain(value: Any) -> Any:
    return _to_wire(value) if isinstance(value, Meta) else value


def _from_wire(kind: type[Any], value: dict[str, Any]) -> Any:
    """Build `kind`; unknown members are ignored, so that either side may be the newer one."""
    taken = {}
    for name, wire, expected, required in _FIELDS[kind]:
        if wire in value:
            taken[name] = _checked(value[wire], expected, f"{kind.__name__.lower()}.{wire}")
        elif required:
            raise ProtocolError(f"{kind.__name__.lower()} lacks {wire!r}")
    return kind(**taken)


_INTEGER_BOUND: Final = 2**53


def _checked(value: Any, expected: Any, where: str) -> Any:
    if typing.get_origin(expected) in (Union, types.UnionType):
        if value is None:
            return None
        expected = next(t for t in typing.get_args(expected) if t is not types.NoneType)
    checker = _CHECKERS.get(expected)
    result = checker(value) if checker else None
    if result is None:
        raise ProtocolError(f"{where} is not a valid {getattr(expected, '__name__', expected)}")
    return result


def _string(value: Any) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _integer(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INTEGER_BOUND
    return value if good else None


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if good and 0 <= value < _INTEGER_BOUND else None


def _keys(value: Any) -> tuple[str, ...] | None:
    good = isinstance(value, list) and len(value) <= KEYS_LIMIT
    return tuple(value) if good and all(isinstance(k, str) and is_key(k) for k in value) else None


def _outcome(value: Any) -> Outcome | None:
    good = isinstance(value, str) and value in RUNNER_OUTCOMES
    return Outcome(value) if good else None


_CHECKERS: Final[dict[Any, Any]] = {
    str: _string,
    int: _integer,
    float: _number,
    bool: lambda value: value if isinstance(value, bool) else None,
    tuple[str, ...]: _keys,
    Outcome: _outcome,
    dict[str, Any]: lambda value: value if isinstance(value, dict) else None,
    Meta: lambda value: _from_wire(Meta, value) if isinstance(value, dict) else None,
}

_FIELDS: Final[dict[type, tuple[tuple[str, str, Any, bool], ...]]] = {
    kind: tuple(_field(f) for f in dataclasses.fields(kind))
    for kind in (*typing.get_args(FromRunner), *typing.get_args(FromServer), Meta)
}
_RUNNER_TYPES: Final[dict[str, type[Message]]] = {
    kind.__name__.lower(): kind for kind in typing.get_args(FromRunner)
}
_SERVER_TYPES: Final[dict[str, type[Message]]] = {
    kind.__name__.lower(): kind for kind in typing.get_args(FromServer)
}
