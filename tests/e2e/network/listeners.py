"""What listens while the tests try: pods, the node, this machine, and a stand-in for a cloud's
metadata service. All of it is made here, and nothing outside of this machine is ever asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster import Cluster
from tests.cluster.commands import find, run
from tests.e2e import images

METADATA = "169.254.169.254"
"""Where clouds answer questions about a machine, credentials among the answers."""
TCP_PORT, UDP_PORT = 8080, 8081

LISTEN = """
import socket, sys, threading
address, port, echo = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tcp = socket.create_server((address, port))
if echo:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, echo))
    def answer():
        while True:
            udp.sendto(*udp.recvfrom(2048))
    threading.Thread(target=answer, daemon=True).start()
print(tcp.getsockname()[1], flush=True)
while True:
    tcp.accept()[0].close()
"""


def pod(name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A pod that listens by TCP and answers by UDP; ready once it does."""
    words = ["python3", "-I", "-c", LISTEN, "0.0.0.0", str(TCP_PORT), str(UDP_PORT)]
    container = {
        "name": "listener",
        "image": images.SERVER,
        "command": words,
        "readinessProbe": {"tcpSocket": {"port": TCP_PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def service(name: str, selector: dict[str, str]) -> dict[str, Any]:
    """A service of such pods."""
    ports = [
        {"name": "tcp", "port": TCP_PORT, "protocol": "TCP"},
        {"name": "udp", "port": UDP_PORT, "protocol": "UDP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": ports},
    }


@contextmanager
def listening(address: str, port: int = 0, inside: tuple[str, ...] = ()) -> Iterator[int]:
    """A process that listens at an address; its port. `inside` is how to get to where that is."""
    argv = [*inside, sys.executable, "-I", "-c", LISTEN, address, str(port), "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def node(cluster: Cluster) -> tuple[str, ...]:
    """Beginning of a command line that runs in the network of the cluster's only node."""
    return ("nsenter", f"--net=/proc/{cluster.pids['kubelet']}/ns/net", "--")


@contextmanager
def metadata_service(cluster: Cluster) -> Iterator[int]:
    """The well-known address on the node, with a listener; its port.

    Packets to it never leave the node: whatever is not of the node itself is thrown away there
    before the address is taken up and until after it is given back.
    """
    inside = node(cluster)
    ip = [*inside, find("ip") or "ip"]
    nowhere = ["route", "add", "blackhole", "169.254.0.0/16"]
    pair = ["link", "add", "metadata0", "type", "veth", "peer", "name", "metadata1"]
    run([*ip, *nowhere])
    try:
        run([*ip, *pair])
        try:
            run([*ip, "link", "set", "metadata0", "up"])
            run([*ip, "address", "add", f"{METADATA}/32", "dev", "metadata0"])
            (way,) = json.loads(run([*ip, "-j", "route", "get", METADATA]))
            assert way["type"] == "local", way
            with listening(METADATA, 80, inside) as port:
                yield port
        finally:
            run([*ip, "link", "delete", "metadata0"])
    finally:
        run([*ip, "route", "delete", *nowhere[2:]])
