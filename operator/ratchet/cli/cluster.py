"""The cluster as a user of kubectl sees it: by the same kubeconfig, context and namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import list_kube_config_contexts

from ratchet.cli.failures import Failed
from ratchet.edges.answers import FAILURES
from ratchet.edges.kube import Api, ApiError, Kube, KubeConfigError


@dataclass(frozen=True, slots=True)
class Where:
    """What the user gave, or what stands for it: empty is kubectl's own choice."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    @property
    def words(self) -> list[str]:
        """The same cluster for kubectl."""
        given = {"kubeconfig": self.kubeconfig, "context": self.context}
        return [f"--{name}={value}" for name, value in given.items() if value]


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server, and the namespace that is meant."""

    api: Api
    where: Where
    namespace: str


@asynccontextmanager
async def connect(where: Where) -> AsyncIterator[Cluster]:
    """The cluster that kubectl would talk to. Raises Failed."""
    file = Path(where.kubeconfig) if where.kubeconfig else None
    try:
        async with await Kube.connect(file, where.context or None) as api:
            yield Cluster(api, where, where.namespace or _namespace(where))
    except KubeConfigError as error:
        raise Failed(f"There is no cluster to ask: {error}.") from error


async def get(cluster: Cluster, path: str, what: str) -> dict[str, object] | None:
    """The object at a path, None if there is none. Raises Failed, in which `what` names it."""
    try:
        return await cluster.api.request("GET", path)
    except FAILURES as failure:
        if isinstance(failure, ApiError) and failure.status == 404:
            return None
        raise refused(what, failure) from failure


def refused(what: str, failure: Exception) -> Failed:
    """The sentence about a request that the API server did not grant or answer."""
    if isinstance(failure, ApiError) and failure.status in (401, 403):
        return Failed(f"You may not read {what}: {failure.message}.")
    return Failed(f"{what} cannot be read: {failure}.")


def _namespace(where: Where) -> str:
    """The namespace of the context, as kubectl takes it."""
    try:
        contexts, active = list_kube_config_contexts(where.kubeconfig or None)  # type: ignore[no-untyped-call]
    except ConfigException:  # credentials of a pod
        return "default"
    chosen = next((c for c in contexts if c["name"] == where.context), active)
    return str(chosen["context"].get("namespace") or "default")
