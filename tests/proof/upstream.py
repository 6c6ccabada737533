"""The way to the real API server for what the official client has no words for: streams, raw bytes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from tests.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the API server is, and how to prove to it who we are."""

    url: str
    tls: ssl.SSLContext


async def upstream(cluster: Cluster) -> Upstream:
    """The API server of a cluster, with the client certificate of its kubeconfig."""
    found = Configuration()
    await load_kube_config(  # type: ignore[no-untyped-call]
        config_file=cluster.kubeconfig,
        context=cluster.context,
        client_configuration=found,
        persist_config=False,
    )
    tls = ssl.create_default_context(cafile=found.ssl_ca_cert)
    if found.cert_file:
        tls.load_cert_chain(found.cert_file, found.key_file)
    return Upstream(str(found.host).rstrip("/"), tls)
