"""The content of a task's start files: inline, or read from ConfigMaps of its namespace."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from ratchet.build.files import StartFile
from ratchet.core.config import File
from ratchet.edges.answers import find
from ratchet.edges.kube import Api, core


class FileMissing(LookupError):
    """A ConfigMap, or the key in it, that a start file names is not there."""


async def read_files(api: Api, namespace: str, files: Sequence[File]) -> tuple[StartFile, ...]:
    """The files with their content, in order. Raises FileMissing or JournalAway."""
    maps: dict[str, Mapping[str, Any]] = {}
    for name in sorted({file.config_map for file in files if file.content is None}):
        found = await find(api, core("configmaps", namespace, name))
        if found is None:
            raise FileMissing(
                f"spec.files: there is no ConfigMap {name!r} in namespace {namespace!r}; create it"
            )
        maps[name] = found
    return tuple(StartFile(file.path, _content(file, maps), file.mode) for file in files)


def _content(file: File, maps: Mapping[str, Mapping[str, Any]]) -> bytes:
    if file.content is not None:
        return file.content.encode()
    found = maps[file.config_map]
    text = (found.get("data") or {}).get(file.key)
    if text is not None:
        return str(text).encode()
    binary = (found.get("binaryData") or {}).get(file.key)
    if binary is not None:
        return base64.b64decode(binary)
    raise FileMissing(
        f"spec.files: ConfigMap {file.config_map!r} has no key {file.key!r}, which {file.path!r} "
        "names; add the key"
    )
