"""Whether a cluster works, as seen from outside of it."""

import http.client
import socket
import ssl
import urllib.request
from pathlib import Path

from tests.cluster.commands import succeeds
from tests.cluster.description import Cluster
from tests.cluster.local import controlplane, layout, processes, record
from tests.cluster.local.record import Record
from tests.cluster.local.slots import Slot

DNS_PORT = 53


def broken_parts(known: Record) -> tuple[str, ...]:
    """Parts that should run and do not."""
    if not processes.alive(known.init):
        return ("node",)
    return tuple(
        name
        for name in layout.parts(known.network)
        if name not in known.parts or not processes.alive(known.parts[name])
    )


def apiserver_is_ready(slot: Slot) -> bool:
    """Whether the API server says that it is ready."""
    pki = record.folder(slot) / "pki"
    try:
        trust = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        trust.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        url = f"{controlplane.server(slot)}/readyz"
        with urllib.request.urlopen(url, timeout=5, context=trust) as answer:
            return bool(answer.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return False


def answers_names(slot: Slot) -> bool:
    """Whether coredns takes connections."""
    try:
        with socket.create_connection((str(slot.dns_ip), DNS_PORT), timeout=2):
            return True
    except OSError:
        return False


def node_is_ready(cluster: Cluster) -> bool:
    """Whether every node of a cluster takes pods."""
    kubectl = [str(Path(cluster.path) / "kubectl"), "--kubeconfig", cluster.kubeconfig]
    ready = ["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=5s"]
    return succeeds([*kubectl, "--context", cluster.context, *ready])
