"""Bare HTTP: one keep-alive connection, bodies encoded before the clock starts, answers read only.

No code of the operator's clients is used for what is measured here.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_kube_config


class NotMeasured(Exception):
    """The benchmark could not be carried out. The text says what to look at."""


@asynccontextmanager
async def api_server(kubeconfig: str, context: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A session at the API server, with the credentials of a kubeconfig."""
    found = Configuration()
    await load_kube_config(  # type: ignore[no-untyped-call]
        config_file=kubeconfig, context=context, client_configuration=found, persist_config=False
    )
    key = await found.get_api_key_with_prefix("BearerToken", "authorization")
    async with aiohttp.ClientSession(
        base_url=str(found.host).rstrip("/") + "/",
        headers={"Authorization": key} if key else {},
        connector=aiohttp.TCPConnector(ssl=RESTClientObject(found).ssl_context),
    ) as session:
        yield session


async def get(session: aiohttp.ClientSession, path: str) -> str:
    """The text that a GET brings. Raises NotMeasured for anything but a success."""
    async with session.get(path.lstrip("/")) as answer:
        body = await answer.text()
    if answer.status != 200:
        raise NotMeasured(f"GET {path}: {answer.status} {body[:300]}")
    return body


@dataclass(frozen=True, slots=True)
class Call:
    """A request to be sent again and again. `NUMBER` in path and body becomes a number."""

    method: str
    path: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    server_name: str | None = None
    """Name in the server's certificate, where it is not the host's."""

    async def send(self, session: aiohttp.ClientSession, number: int) -> float:
        """Milliseconds from the request to the last byte of its answer. Raises NotMeasured."""
        path, body = (part.replace("NUMBER", str(number)) for part in (self.path, self.body))
        data = body.encode()
        begin = time.perf_counter()
        async with session.request(
            self.method, path, data=data, headers=self.headers, server_hostname=self.server_name
        ) as answer:
            told = await answer.read()
        ms = 1000 * (time.perf_counter() - begin)
        if answer.status >= 300:
            raise NotMeasured(f"{self.method} {path}: {answer.status} {told[:500]!r}")
        return ms


def session_at(base_url: str, tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """A session at any server; `tls`: how its certificate is checked."""
    connector = aiohttp.TCPConnector(ssl=tls) if tls else aiohttp.TCPConnector()
    return aiohttp.ClientSession(base_url=base_url, connector=connector)
