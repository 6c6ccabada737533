"""Addresses and ports of sandboxes on this machine's loopback. Linux answers on all of 127/8."""

from __future__ import annotations

import random
import socket

from ratchet_sandbox import protocol

RUNNER_PORTS = range(10_000, 32_000)
"""Below the ports that the kernel gives to outgoing connections (ip_local_port_range)."""


def free_address() -> str:
    """A loopback address on whose sandbox port nobody listens, drawn by chance."""
    while True:
        x, y, z = random.randint(16, 250), random.randint(0, 255), random.randint(1, 254)
        address = f"127.{x}.{y}.{z}"
        if _is_free(address, protocol.HTTPS_PORT):
            return address


def free_runner_port() -> int:
    """A port for the link between server and runner, which is on 127.0.0.1 for all sandboxes."""
    while True:
        port = random.choice(RUNNER_PORTS)
        if _is_free(protocol.RUNNER_HOST, port):
            return port


def user_of(address: str) -> int:
    """A user id that belongs to this address alone, far above those that people have."""
    _, x, y, z = (int(part) for part in address.split("."))
    return 2**24 + (x << 16 | y << 8 | z)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
