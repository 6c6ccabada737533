"""The Kubernetes API over HTTP, with plain dicts: what every edge to the cluster is built on.

The connection, its TLS and its credentials are those of the official client (`kubernetes.aio`);
its models and generated methods are left out, since bodies are plain dicts on the hot path.

One request is one try. Who asks knows whether asking again is safe; a client that retries by
itself would hide a lost answer. There are two exceptions. A 401 where there is a newer token by
now: who is not known is refused before anything is done. And aiohttp itself sends a GET, PUT or
DELETE once more if a connection that it kept turns out to be closed; each PUT here names the
version that it replaces, so that the second one changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from ratchet.api import names

POOL = 64
"""Connections to the API server at the same time."""
TIMEOUT_S = 10.0
JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
"""Server-side apply. JSON is YAML, so the body is a dict as everywhere."""

Params = Mapping[str, str | int]


class ApiError(Exception):
    """The API server answered, and said no.

    `status` is the HTTP status, `reason` the word of the Status object (AlreadyExists, Conflict,
    NotFound, Invalid, ...) or the HTTP phrase, `retry_after` the seconds it asks to wait.
    """

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class ApiUnreachable(Exception):
    """No answer, or none that can be read. A write may or may not have happened."""


class KubeConfigError(Exception):
    """There are no usable credentials for the API server. The text says where they were sought."""


class Api(Protocol):
    """What the edges ask of the API server; tests put faults in between."""

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        """Send one request, once. Raises ApiError or ApiUnreachable."""


class Kube:
    """One API server (Api). Holds the connections; close it, or use it as a context manager.

    `find` reads the credentials once more, from where they came, and its token is taken over; a
    client without it keeps the ones that it has.
    """

    def __init__(
        self,
        configuration: Configuration,
        find: Callable[[], Awaitable[Configuration]] | None = None,
    ) -> None:
        configuration.connection_pool_maxsize = POOL
        configuration.retries = None
        configuration.client_go_retries = False
        # Neither ~/.netrc nor proxies of the environment: kopf does not take them either, and
        # aiohttp would look for them in threads at every request.
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration
        self._find = find
        self._finding = asyncio.Lock()
        self._rest = RESTClientObject(configuration)
        self._host = str(configuration.host).rstrip("/")

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> Self:
        """Find the credentials, and make a client of them; nothing is sent yet.

        Without arguments: the pod's service account (its token is read again every minute), or
        the default kubeconfig where this is no pod. Raises KubeConfigError.
        """

        async def find() -> Configuration:
            return await _configuration(kubeconfig, context)

        return cls(await find(), find)

    @property
    def host(self) -> str:
        """URL of the API server."""
        return self._host

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        """Send one request, once, and return the JSON object that came back.

        `params` become the query. Raises ApiError if the server says no, ApiUnreachable if there
        is no readable answer within `timeout_s`.
        """
        url = f"{self._host}{path}" + (f"?{urlencode(params)}" if params else "")
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        token = await self._token()
        status, headers, data = await self._send(method, url, body, content_type, token, timeout)
        if status == HTTPStatus.UNAUTHORIZED and (newer := await self._newer_token(token)):
            status, headers, data = await self._send(
                method, url, body, content_type, newer, timeout
            )
        if status >= HTTPStatus.BAD_REQUEST:
            raise _error(status, data, headers.get("Retry-After"))
        return _object(data, f"{method} {path}")

    async def _send(
        self,
        method: str,
        url: str,
        body: Any,
        content_type: str,
        token: str,
        timeout: aiohttp.ClientTimeout,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer. Raises ApiUnreachable."""
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": names.FIELD_MANAGER}
        if token:
            headers["Authorization"] = token
        what = f"{method} {url.removeprefix(self._host)}"
        try:
            answer = await self._rest.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            return answer.status, answer.headers, await answer.read()
        except TimeoutError as error:
            text = f"{what}: no answer from {self._host} within {timeout.total:g} s"
            raise ApiUnreachable(text) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiUnreachable(f"{what}: {type(error).__name__}: {error}") from error

    async def _token(self) -> str:
        """What goes into the Authorization header; empty where a certificate says who we are."""
        try:
            found = await self._configuration.get_api_key_with_prefix(
                "BearerToken", "authorization"
            )
        except (ConfigException, OSError) as error:
            raise ApiUnreachable(f"the service account's token cannot be read: {error}") from error
        return found or ""

    async def _newer_token(self, refused: str) -> str:
        """The token that is to be had instead of a refused one; empty if there is none."""
        async with self._finding:
            known = await self._token()
            if known != refused:
                return known  # another request has found it meanwhile
            if self._find is None:
                return ""
            try:
                fresh = await self._find()
            except KubeConfigError as error:
                raise ApiUnreachable(f"{self._host} refuses the credentials: {error}") from error
            self._configuration.api_key = fresh.api_key
            self._configuration.refresh_api_key_hook = fresh.refresh_api_key_hook
            found = await self._token()
            return "" if found == refused else found


async def _configuration(kubeconfig: Path | None, context: str | None) -> Configuration:
    """The credentials as they are now. Raises KubeConfigError."""
    configuration = Configuration()
    try:
        if kubeconfig is None and context is None and _in_cluster(configuration):
            return configuration
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=None if kubeconfig is None else str(kubeconfig),
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (ConfigException, OSError) as error:
        where = kubeconfig or "KUBECONFIG or ~/.kube/config, and not in a pod"
        raise KubeConfigError(f"no credentials for the API server ({where}): {error}") from error
    return configuration


def _in_cluster(configuration: Configuration) -> bool:
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        return False
    return True


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ApiUnreachable(f"{what}: the answer is not JSON: {data[:200]!r}") from error
    if not isinstance(found, dict):
        raise ApiUnreachable(f"{what}: the answer is no JSON object: {data[:200]!r}")
    return found


def _error(status: int, data: bytes, retry_after: str | None) -> ApiError:
    """The error of an answer: a Status object, or whatever a proxy in between may write."""
    phrase = _phrase(status)
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return ApiError(status, phrase, data[:500].decode("utf-8", "replace"), seconds)
    reason = str(found.get("reason") or phrase)
    return ApiError(status, reason, str(found.get("message") or phrase), seconds)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.replace(" ", "")
    except ValueError:
        return f"HTTP{status}"


# --- paths ---------------------------------------------------------------------------------------


def ours(plural: str, namespace: str, name: str = "", part: str = "") -> str:
    """Path of objects of our group: a collection, an object, or its `part` ("status")."""
    return _path(f"/apis/{names.GROUP}/{names.VERSION}", plural, namespace, name, part)


def core(plural: str, namespace: str, name: str = "", part: str = "") -> str:
    """Path of objects of the core group, such as pods, secrets and configmaps."""
    return _path("/api/v1", plural, namespace, name, part)


def task(namespace: str, name: str, part: str = "") -> str:
    """Path of an AgentTask."""
    return ours(names.TASK_PLURAL, namespace, name, part)


def tasks(namespace: str = "") -> str:
    """All AgentTasks of a namespace, or of the cluster."""
    if not namespace:
        return f"/apis/{names.GROUP}/{names.VERSION}/{names.TASK_PLURAL}"
    return ours(names.TASK_PLURAL, namespace)


def turn(namespace: str, name: str = "", part: str = "") -> str:
    """Path of an AgentTurn, or of all of a namespace."""
    return ours(names.TURN_PLURAL, namespace, name, part)


def lease(namespace: str, name: str = "") -> str:
    """Path of a Lease."""
    return _path("/apis/coordination.k8s.io/v1", "leases", namespace, name, "")


def _path(group: str, plural: str, namespace: str, name: str, part: str) -> str:
    pieces = [group, "namespaces", quote(namespace, safe=""), plural]
    pieces += [quote(piece, safe="") for piece in (name, part) if piece]
    return "/".join(pieces)


async def pages(
    api: Api, path: str, selector: str, limit: int = 50
) -> AsyncIterator[dict[str, Any]]:
    """Every object of a collection that a label selector finds, read page by page.

    The pages are of one moment: the API server keeps it for some minutes. Raises as `request`;
    ApiError 410 means that the moment has passed and the list must be read anew.
    """
    token = ""
    while True:
        params: dict[str, str | int] = {"labelSelector": selector, "limit": limit}
        if token:
            params["continue"] = token
        page = await api.request("GET", path, params=params)
        for item in page.get("items") or ():
            yield item
        token = (page.get("metadata") or {}).get("continue") or ""
        if not token:
            return
