"""Our operator's watch as a process of its own, with nobody behind its handlers."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import kopf
from ratchet.shell.freshness import Freshness
from ratchet.shell.handlers import register
from ratchet.shell.main import kopf_settings

from tests.kopf_contract.bell import Bell
from tests.kopf_contract.noting import Noting


async def main(url: str) -> None:
    """Watch until a signal ends it, as `main.watch` does with other credentials."""
    registry = kopf.OperatorRegistry()
    register(registry, Noting(Bell()), Freshness())

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=url, token="first")

    await kopf.operator(
        registry=registry, settings=kopf_settings(), standalone=True, clusterwide=True
    )


if __name__ == "__main__":
    logging.basicConfig()
    asyncio.run(main(sys.argv[1]))
