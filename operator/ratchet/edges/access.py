"""How a model endpoint is reached now: its key, its own headers, and whom its TLS must be signed by.

The Secret and the ConfigMap are those of the endpoint's namespace. Both are kept for a minute and
read again as soon as a server refuses what they gave, so that a key or a CA that is replaced harms
no task. However many requests need one, it is read once.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from multidict import CIMultiDict

from ratchet.core.config import ModelConfig

LIFE_S = 60.0
"""How long what was read is kept."""
ADMIN_KEY = "admin-key"
"""Key of the endpoint's Secret with SGLang's admin key, where it is served with `--admin-api-key`.

Aborts then want that one and refuse the other (recorded of 0.5.23).
"""
DEFAULT_CA_KEY = "ca.crt"
_HIDDEN = "***"
_SHORTEST_HIDDEN = 6
"""Characters of a secret worth hiding: a shorter one is found in innocent text."""


class Missing(StrEnum):
    """What of an endpoint cannot be used; words of its condition."""

    SECRET = "SecretNotFound"
    CA = "CAInvalid"


class AccessMissing(LookupError):
    """Something that the endpoint names is not there or cannot be used; the text is a sentence."""

    def __init__(self, reason: Missing, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Reader(Protocol):
    """Where Secrets and ConfigMaps are read.

    Raises LookupError, with a sentence, for what does not exist, and PortError for what cannot be
    read now.
    """

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """The texts of a Secret by key."""

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        """The texts of a ConfigMap by key."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a request to an endpoint is sent with. The texts are secret: no repr shows them."""

    key: str = field(repr=False, default="")
    admin_key: str = field(repr=False, default="")
    own: tuple[tuple[str, str], ...] = field(repr=False, default=())
    tls: ssl.SSLContext | bool = True
    """For aiohttp's `ssl`: True trusts whom the system trusts."""

    @property
    def headers(self) -> CIMultiDict[str]:
        """Those of an ordinary request. The endpoint's own never win over ours."""
        headers = CIMultiDict(self.own)
        headers["Accept"] = "application/json"
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return headers

    @property
    def admin_headers(self) -> CIMultiDict[str]:
        """Those of a request that changes something at the server."""
        headers = self.headers
        if self.admin_key:
            headers["Authorization"] = f"Bearer {self.admin_key}"
        return headers

    def hide(self, text: str) -> str:
        """The text without the secrets that a server may have repeated in it."""
        for secret in (self.key, self.admin_key, *(value for _, value in self.own)):
            if len(secret) >= _SHORTEST_HIDDEN:
                text = text.replace(secret, _HIDDEN)
        return text


_Place = tuple[str, str, str]
"""Kind, namespace, name."""


_Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    begun: float
    reading: asyncio.Task[_Texts]


class Access:
    """Knows how endpoints are reached. One object for all that ask models."""

    def __init__(self, reader: Reader) -> None:
        self._read: dict[str, Callable[[str, str], Awaitable[_Texts]]] = {
            "Secret": reader.secret,
            "ConfigMap": reader.config_map,
        }
        self._kept: dict[_Place, _Kept] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def of(self, config: ModelConfig, namespace: str, newer_than: float = 0.0) -> Reach:
        """What a request to this endpoint is sent with, read after `newer_than` (monotonic time).

        `namespace` is the task's, for an endpoint that says none of its own. Raises AccessMissing,
        and PortError if something cannot be read now.
        """
        where = config.namespace or namespace
        key = admin_key = ""
        if config.secret_name:
            key, admin_key = await self._keys(config, where, newer_than)
        tls: ssl.SSLContext | bool = True
        if config.ca_config_map:
            tls = await self._tls(config, where, newer_than)
        return Reach(key, admin_key, config.headers, tls)

    def forget(self, config: ModelConfig, namespace: str) -> None:
        """Read all of it again next time: a server has refused what is there now."""
        where = config.namespace or namespace
        self._kept.pop(("Secret", where, config.secret_name), None)
        self._kept.pop(("ConfigMap", where, config.ca_config_map), None)

    async def _keys(
        self, config: ModelConfig, namespace: str, newer_than: float
    ) -> tuple[str, str]:
        name = f"Secret {namespace}/{config.secret_name}"
        place = ("Secret", namespace, config.secret_name)
        texts = await self._texts(place, Missing.SECRET, newer_than)
        if config.secret_key not in texts:
            text = f"{name} has no key {config.secret_key!r} that is text: add it"
            raise AccessMissing(Missing.SECRET, text)
        key, admin_key = texts[config.secret_key].strip(), texts.get(ADMIN_KEY, "").strip()
        if not _can_be_sent(key):
            text = (
                f"key {config.secret_key!r} of {name} is empty or is not one line of printable "
                "ASCII: write the key into it again"
            )
            raise AccessMissing(Missing.SECRET, text)
        return key, admin_key if _can_be_sent(admin_key) else ""

    async def _tls(self, config: ModelConfig, namespace: str, newer_than: float) -> ssl.SSLContext:
        key = config.ca_key or DEFAULT_CA_KEY
        place = ("ConfigMap", namespace, config.ca_config_map)
        texts = await self._texts(place, Missing.CA, newer_than)
        name = f"ConfigMap {namespace}/{config.ca_config_map}"
        if key not in texts:
            raise AccessMissing(Missing.CA, f"{name} has no key {key!r}: add it, as PEM")
        digest = hashlib.sha256(texts[key].encode()).hexdigest()
        if digest not in self._contexts:
            try:
                self._contexts[digest] = _trusting(texts[key])
            except (ssl.SSLError, ValueError) as error:
                text = (
                    f"key {key!r} of {name} holds no certificates as PEM ({error}): write the "
                    "certificate of the CA into it"
                )
                raise AccessMissing(Missing.CA, text) from error
        return self._contexts[digest]

    async def _texts(self, place: _Place, missing: Missing, newer_than: float) -> _Texts:
        """An object's texts, out of the cache or read once for all who ask at the same time."""
        kept, now = self._kept.get(place), time.monotonic()
        if kept is None or kept.begun <= max(now - LIFE_S, newer_than):
            kept = self._kept[place] = self._begin(place, missing, now)
        # Shielded: whoever is cancelled takes it away from nobody else.
        return await asyncio.shield(kept.reading)

    def _begin(self, place: _Place, missing: Missing, now: float) -> _Kept:
        def forget_failure(task: asyncio.Task[_Texts]) -> None:
            if (task.cancelled() or task.exception()) and self._kept.get(place) is kept:
                del self._kept[place]

        kept = _Kept(now, asyncio.create_task(self._read_now(place, missing)))
        kept.reading.add_done_callback(forget_failure)
        return kept

    async def _read_now(self, place: _Place, missing: Missing) -> _Texts:
        kind, namespace, name = place
        try:
            return await self._read[kind](namespace, name)
        except LookupError as error:
            raise AccessMissing(missing, " ".join(map(str, error.args))) from error


def _can_be_sent(key: str) -> bool:
    return bool(key) and key.isprintable() and key.isascii()


def _trusting(pem: str) -> ssl.SSLContext:
    """TLS that trusts these certificates alone. Raises ssl.SSLError or ValueError."""
    if not pem.strip():
        # An empty text would mean those of the system.
        raise ValueError("it is empty")
    # Comments between the certificates may be in any language.
    context = ssl.create_default_context(cadata=pem.encode("ascii", "ignore").decode())
    # Whoever names an intermediate or the server's own certificate trusts that one.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
