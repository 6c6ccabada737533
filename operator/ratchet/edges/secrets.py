"""What model endpoints name of the cluster, Secrets and ConfigMaps, read when it is needed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from ratchet.edges.kube import Api, ApiError, ApiUnreachable, core
from ratchet.ports import PortError


class KeyReader:
    """Reads Secrets and ConfigMaps as text. Nothing is kept."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """The keys of a Secret that hold text.

        Raises LookupError, with a sentence, if it does not exist, PortError if it cannot be read now.
        """
        where = f"Secret {namespace}/{name}"
        found = await self._read(where, core("secrets", namespace, name))
        texts = {key: _text(data) for key, data in (found.get("data") or {}).items()}
        return {key: text for key, text in texts.items() if text is not None}

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        """The texts of a ConfigMap. Raises as `secret` does."""
        where = f"ConfigMap {namespace}/{name}"
        found = await self._read(where, core("configmaps", namespace, name))
        return {**(found.get("data") or {})}

    async def _read(self, where: str, path: str) -> dict[str, Any]:
        try:
            return await self._api.request("GET", path)
        except ApiUnreachable as error:
            raise PortError(f"{where} cannot be read: {error}") from error
        except ApiError as error:
            if error.status == 404:
                raise LookupError(f"there is no {where}: create it") from error
            raise PortError(f"{where} cannot be read: {error}") from error


def _text(data: str) -> str | None:
    """What base64 hides, as text; None if it is none."""
    try:
        return base64.b64decode(data).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
