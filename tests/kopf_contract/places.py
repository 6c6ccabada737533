"""The double of an API server and a real one, as their common contract sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import kopf
import yaml
from ratchet.edges.kube import Kube, core, tasks

from tests.cluster import Cluster
from tests.kopf_contract.api_server import NAMESPACE, ApiServer
from tests.kopf_contract.api_shapes import Object
from tests.kopf_contract.bell import WITHIN_S

PLURAL = "configmaps"
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Moment:
    """A version of a resource, and the path that lists it."""

    path: str
    version: str


class Place(Protocol):
    """A server, and a namespace there whose ConfigMaps a test may do with as it likes."""

    @property
    def namespace(self) -> str: ...
    @property
    def url(self) -> str: ...
    def session(self) -> aiohttp.ClientSession: ...
    async def create(self, name: str, **metadata: Any) -> None: ...
    async def change(self, name: str, **metadata: Any) -> None: ...
    async def delete(self, name: str) -> None: ...
    async def forgotten(self) -> Moment:
        """A moment that no watch can begin at."""
        ...

    async def bookmark(self) -> None:
        """See to it that open watches get one soon."""


@dataclass(slots=True)
class Double:
    """Our own server."""

    server: ApiServer
    namespace: str = NAMESPACE

    @property
    def url(self) -> str:
        return self.server.url

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers={"Authorization": "Bearer first"})

    async def create(self, name: str, **metadata: Any) -> None:
        self.server.create(PLURAL, name, metadata=metadata)

    async def change(self, name: str, **metadata: Any) -> None:
        self.server.change(PLURAL, name, metadata=metadata)

    async def delete(self, name: str) -> None:
        self.server.delete(PLURAL, name)

    async def forgotten(self) -> Moment:
        self.server.forget_history()
        return Moment(core(PLURAL, self.namespace), "1")

    async def bookmark(self) -> None:
        self.server.send_bookmark(PLURAL)


@dataclass(slots=True)
class Real:
    """The API server of the cluster."""

    api: Kube
    namespace: str
    credentials: kopf.ConnectionInfo = field(repr=False)

    @property
    def url(self) -> str:
        return self.credentials.server

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers=self.credentials.as_http_headers(),
            connector=aiohttp.TCPConnector(ssl=self.credentials.as_ssl_context()),
        )

    def _path(self, name: str = "") -> str:
        return core(PLURAL, self.namespace, name)

    async def create(self, name: str, **metadata: Any) -> None:
        await self.api.request("POST", self._path(), {"metadata": {"name": name, **metadata}})

    async def change(self, name: str, **metadata: Any) -> None:
        body = {"metadata": metadata}
        await self.api.request("PATCH", self._path(name), body, content_type=MERGE_PATCH)

    async def delete(self, name: str) -> None:
        await self.api.request("DELETE", self._path(name))

    async def forgotten(self) -> Moment:
        """Of a custom resource nothing is remembered from before it was defined."""
        return Moment(tasks(self.namespace), "1")

    async def bookmark(self) -> None:
        """It comes by itself, 2 s before the end of a watch that has one."""


@asynccontextmanager
async def watch(place: Place, path: str = "", **query: str) -> AsyncIterator[AsyncIterator[Object]]:
    """The events of a watch of a path or else of the namespace's ConfigMaps, up to its end."""
    path = path or core(PLURAL, place.namespace)
    params = {"watch": "true", "allowWatchBookmarks": "true", **query}
    async with place.session() as session, session.get(place.url + path, params=params) as answer:
        assert answer.status == 200
        yield _events(answer)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Object]:
    while True:
        async with asyncio.timeout(WITHIN_S):
            line = await answer.content.readline()
        if not line:
            return
        event: Object = json.loads(line)
        yield event


def credentials(cluster: Cluster) -> kopf.ConnectionInfo:
    """Those of the cluster's kubeconfig: a client certificate or a token."""
    loaded = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    context = _named(loaded["contexts"], cluster.context)["context"]
    server = _named(loaded["clusters"], context["cluster"])["cluster"]
    user = _named(loaded["users"], context["user"])["user"]
    return kopf.ConnectionInfo(
        server=server["server"],
        ca_path=server.get("certificate-authority"),
        ca_data=server.get("certificate-authority-data"),
        insecure=server.get("insecure-skip-tls-verify"),
        token=user.get("token"),
        certificate_path=user.get("client-certificate"),
        certificate_data=user.get("client-certificate-data"),
        private_key_path=user.get("client-key"),
        private_key_data=user.get("client-key-data"),
    )


def _named(entries: list[Any], name: str) -> Any:
    return next(entry for entry in entries if entry["name"] == name)
