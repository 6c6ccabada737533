"""Whether the API server serves our kinds.

kopf asks once, at its start. A kind that it does not find it never watches, and says so in the log
alone: an operator that is installed before its CRDs would look well and do nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from ratchet.api import names
from ratchet.edges.kube import Api, ApiError, ApiUnreachable

NEEDED = frozenset(
    (
        names.TASK_PLURAL,
        names.TURN_PLURAL,
        names.PROFILE_PLURAL,
        names.ENDPOINT_PLURAL,
        names.CLASS_PLURAL,
    )
)
ASK_AGAIN_S = 2.0
"""Between questions to an API server that does not answer."""

_log = logging.getLogger("ratchet.discovery")


class NotServed(Exception):
    """The API server does not know kinds of ours. The text names them and says what to do."""


async def expect_kinds(api: Api, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Return if all our kinds are served, as soon as the API server can say. Raises NotServed."""
    while True:
        try:
            missing = NEEDED - await _served(api)
            break
        except (ApiError, ApiUnreachable) as error:
            _log.warning("what the API server serves cannot be learned yet: %s", error)
            await sleep(ASK_AGAIN_S)
    if missing:
        raise NotServed(
            f"the API server does not serve {', '.join(sorted(missing))} of {names.GROUP}/"
            f"{names.VERSION}: install the chart ratchet-crds of this version, and the operator"
            " starts again"
        )


async def _served(api: Api) -> set[str]:
    path = f"/apis/{names.GROUP}/{names.VERSION}"
    try:
        found = await api.request("GET", path)
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return set()
        raise
    return {str(resource.get("name")) for resource in found.get("resources") or ()}
