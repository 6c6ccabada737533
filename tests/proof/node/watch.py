"""The pods of one node, as the API server tells of them: a list, then changes, for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_kube_config

Object = dict[str, Any]
PODS = "/api/v1/pods"
RETRY_S = 0.2
WATCH_S = 300
LIST_S = 30


class Interrupted(Exception):
    """The list or the watch ended; what has happened since is in the next list."""


class PodWatch:
    """Use as `async with`, then iterate over `changes`."""

    def __init__(self, configuration: Configuration, node: str) -> None:
        self._host = str(configuration.host).rstrip("/")
        self._rest = RESTClientObject(configuration)
        self._selector = f"spec.nodeName={node}"

    @classmethod
    async def open(cls, kubeconfig: str, context: str, node: str) -> PodWatch:
        configuration = Configuration()
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig,
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
        return cls(configuration, node)

    async def close(self) -> None:
        await self._rest.close()

    async def changes(self) -> AsyncGenerator[tuple[list[Object] | None, Object], None]:
        """``(all pods, {})`` after each list, ``(None, pod)`` after each change.

        A deleted pod is told of by the next list, or with `metadata.deleted` set to True.
        """
        while True:
            try:
                listed = await self._list()
                yield listed["items"], {}
                async with aclosing(self._watch(listed["metadata"]["resourceVersion"])) as pods:
                    async for pod in pods:
                        yield None, pod
            except (Interrupted, aiohttp.ClientError, OSError, TimeoutError):
                await asyncio.sleep(RETRY_S)

    async def _list(self) -> Object:
        answer = await self._get({"fieldSelector": self._selector}, LIST_S)
        found: Object = json.loads(await answer.read())
        return found

    async def _watch(self, version: str) -> AsyncGenerator[Object, None]:
        query = {"watch": "1", "fieldSelector": self._selector, "resourceVersion": version}
        answer = await self._get({**query, "timeoutSeconds": str(WATCH_S)}, WATCH_S + LIST_S)
        async with answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Interrupted(line.decode())
                pod: Object = event["object"]
                if event["type"] == "DELETED":
                    pod["metadata"]["deleted"] = True
                yield pod

    async def _get(self, query: dict[str, str], within_s: float) -> aiohttp.ClientResponse:
        answer = await self._rest.request(  # type: ignore[no-untyped-call]
            "GET",
            f"{self._host}{PODS}?{urlencode(query)}",
            headers={"Accept": "application/json"},
            _request_timeout=aiohttp.ClientTimeout(total=within_s),
        )
        found: aiohttp.ClientResponse = answer.response
        if found.status != HTTPStatus.OK:
            raise Interrupted(f"{found.status}: {(await found.read())[:200]!r}")
        return found
