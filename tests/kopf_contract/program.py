"""Our operator's watch as a process of its own, with nobody behind its handlers."""

from __future__ import annotations

import asyncio
import sys

from tests.kopf_contract.api_server import ApiServer
from tests.kopf_contract.bell import Bell
from tests.kopf_contract.noting import Noting
from tests.kopf_contract.operators import Operator


async def main(port: int) -> None:
    """Watch until a signal ends it. Raises what kopf raises."""
    server = ApiServer([], port=port)  # not started: it only knows where the other one is
    async with Operator(server, Noting(Bell()).register) as operator:
        raised = await operator.ended
    if raised is not None:
        raise raised


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
