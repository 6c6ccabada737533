"""Names and digests that both sides of a wire must agree on.

Everything here is a pure function of recorded facts, so whoever takes over a
task computes the same key, the same digest and the same id again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def canonical(value: Any) -> str:
    """JSON text with one spelling for a value: sorted keys, no spaces, no escapes but the needed.

    A dataclass is written as an object of its fields.
    """
    return _ENCODER.encode(value)


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass. Raises TypeError for what is none, as JSON wants it."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_fields
)


def sha256(text: str) -> str:
    """Hex SHA-256 of the UTF-8 bytes of a clean text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def clean(text: str) -> str:
    """The text as UTF-8 can carry it: lone surrogates become question marks.

    Digests cover the strings that the API server returns, so nothing that it
    would change or refuse may enter a record.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def call_key(task_uid: str, turn: int, index: int, rerun: int = 0) -> str:
    """The idempotency key of a call; `rerun` counts its deliberate re-runs from 1."""
    key = f"{task_uid}/{turn}/{index}"
    return f"{key}/r{rerun}" if rerun else key


def call_digest(tool: str, arguments: str) -> str:
    """What ties a key to its meaning; `arguments` is canonical JSON text."""
    return "sha256:" + sha256(f"{tool}\n{arguments}")


def call_id(task_uid: str, turn: int, index: int) -> str:
    """The id a model sees for a call: 9 alphanumerics, which is what Mistral's templates demand."""
    number = int(sha256(call_key(task_uid, turn, index)), 16)
    letters = []
    for _ in range(9):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)


def request_id(task_uid: str, turn: int, attempt: int, epoch: int) -> str:
    """The id of one attempt at a model request, unique among all owners of the task."""
    return f"ratchet-{task_uid}-t{turn}-a{attempt}-e{epoch}"
