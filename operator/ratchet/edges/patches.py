"""Patches that are too large for the journal: stored in ConfigMaps, and read back from them."""

from __future__ import annotations

import base64
import hashlib
from http import HTTPStatus

from ratchet.build.patchparts import Part, content, parts
from ratchet.core.records import Patch, PatchPart
from ratchet.edges.answers import FAILURES, Failure, Meaning, away, find, meaning
from ratchet.edges.kube import Api, ApiError, core
from ratchet.edges.sandbox import Diff
from ratchet.ports import SandboxAway, TaskRef

INLINE_MAX = 100 * 1024
"""Largest patch, in bytes, that goes into the journal itself."""


class PatchBroken(Exception):
    """What is stored is not the patch that was recorded. The text says what is wrong with it."""


async def stored(api: Api, task: TaskRef, diff: Diff) -> Patch:
    """The patch as the End record names it, after it is stored wherever it has to be.

    Text where it is UTF-8; beyond INLINE_MAX in ConfigMaps. Raises JournalAway where the API
    server is, SandboxAway where it will not have a ConfigMap.
    """
    if len(diff.patch) <= INLINE_MAX:
        return inline(diff)
    made = parts(task.namespace, task.name, task.uid, diff.patch, diff.sha256)
    for part in made:
        await _store(api, task, part)
    listed = tuple(PatchPart(part.name, len(part.content)) for part in made)
    return Patch(
        diff.base, diff.sha256, len(diff.patch), upstream_commit=diff.upstream, parts=listed
    )


def inline(diff: Diff) -> Patch:
    """The patch as it is written into a record."""
    try:
        text, encoding = diff.patch.decode(), "text"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(diff.patch).decode(), "base64"
    return Patch(diff.base, diff.sha256, len(diff.patch), text, encoding, diff.upstream)


async def read(api: Api, namespace: str, patch: Patch) -> bytes:
    """The bytes of a recorded patch, digest checked. Raises PatchBroken, or JournalAway."""
    if not patch.parts:
        return checked(patch, inline_bytes(patch))
    pieces = []
    for part in patch.parts:
        found = await find(api, core("configmaps", namespace, part.name))
        if found is None:
            raise PatchBroken(f"ConfigMap {part.name}, which holds a part of it, is gone")
        pieces.append(piece(part, content(found)))
    return checked(patch, b"".join(pieces))


def inline_bytes(patch: Patch) -> bytes:
    """The bytes in the record. Raises PatchBroken if there are none, and some were to be."""
    if patch.size and not patch.inline:
        raise PatchBroken("it was too large to be kept: only its size and digest were recorded")
    if patch.encoding != "base64":
        return patch.inline.encode("utf-8")
    try:
        return base64.b64decode(patch.inline, validate=True)
    except ValueError as error:
        raise PatchBroken("it is not base64, as the record says") from error


def piece(part: PatchPart, found: bytes | None) -> bytes:
    """A part as it was read, if it is as long as the record says. Raises PatchBroken."""
    if found is None or len(found) != part.size:
        has = "nothing" if found is None else f"{len(found)} bytes"
        raise PatchBroken(f"ConfigMap {part.name} holds {has} of it, not {part.size} bytes")
    return found


def checked(patch: Patch, data: bytes) -> bytes:
    """These bytes, if they are the recorded ones. Raises PatchBroken."""
    if (len(data), hashlib.sha256(data).hexdigest()) != (patch.size, patch.sha256):
        raise PatchBroken("it is not of its own size and digest: somebody changed what is stored")
    return data


async def _store(api: Api, task: TaskRef, part: Part) -> None:
    path = core("configmaps", task.namespace)
    try:
        await api.request("POST", path, part.manifest)
        return
    except FAILURES as failure:
        if meaning(failure) not in (Meaning.EXISTS, Meaning.UNKNOWN):
            raise _refused(part, failure) from failure
    found = await find(api, f"{path}/{part.name}")
    if found is None:
        raise away(ApiError(HTTPStatus.CONFLICT, "Conflict", f"ConfigMap {part.name} is not there"))
    if content(found) != part.content:
        raise SandboxAway(
            f"the patch cannot be stored: there is a ConfigMap {part.name} with something else in "
            "it; delete it"
        )


def _refused(part: Part, failure: Failure) -> Exception:
    if meaning(failure) is Meaning.LATER and getattr(failure, "status", 0) != HTTPStatus.FORBIDDEN:
        return away(failure)
    return SandboxAway(f"the patch cannot be stored in ConfigMap {part.name}: {failure}")
