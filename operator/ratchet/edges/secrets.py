"""Keys of model endpoints, read from Secrets when they are needed and never stored elsewhere."""

from __future__ import annotations

import base64
import binascii

from ratchet.edges.kube import Api, ApiError, ApiUnreachable, core
from ratchet.ports import PortError


class KeyReader:
    """Reads one key of a Secret as text."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def __call__(self, namespace: str, secret: str, key: str) -> str:
        """The key. Raises LookupError if it is not there, PortError if it cannot be read now."""
        where = f"Secret {namespace}/{secret}"
        try:
            found = await self._api.request("GET", core("secrets", namespace, secret))
        except ApiUnreachable as error:
            raise PortError(f"{where} cannot be read: {error}") from error
        except ApiError as error:
            if error.status == 404:
                raise LookupError(f"there is no {where}: create it with the key {key!r}") from error
            raise PortError(f"{where} cannot be read: {error}") from error
        data = (found.get("data") or {}).get(key)
        if data is None:
            raise LookupError(f"{where} has no key {key!r}: add it")
        try:
            return base64.b64decode(data).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise LookupError(f"the key {key!r} of {where} is not text") from error
