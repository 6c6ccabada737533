"""A look at all tasks now and then, for what the watch did not tell.

A deletion that falls into a gap of the watch is never told (kopf 1.45.2, `tests/kopf_contract`), and
an event that is lost on a connection that lives on is not repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ratchet.edges import kube
from ratchet.edges.answers import FAILURES
from ratchet.shell.handlers import task_seen
from ratchet.shell.supervisor import Supervisor

PAGE = 500
"""Tasks in one answer."""

_log = logging.getLogger("ratchet.survey")


class Survey:
    """Tells the supervisor of all tasks that there are, and of those that are no more."""

    def __init__(
        self,
        api: kube.Api,
        namespaces: tuple[str, ...],
        supervisor: Supervisor,
        *,
        every_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._namespaces = namespaces or ("",)
        self._supervisor = supervisor
        self._every_s = every_s
        self._sleep = sleep

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._sleep(self._every_s)
            try:
                await self.look()
            except FAILURES as failure:
                _log.warning(
                    "the tasks could not be listed; next try in %g s: %s", self._every_s, failure
                )

    async def look(self) -> None:
        """List all tasks once. Raises ApiError and ApiUnreachable; then nothing is forgotten."""
        before = self._supervisor.known
        found = [
            task_seen(None, body)
            for namespace in self._namespaces
            async for body in kube.pages(self._api, kube.tasks(namespace), "", PAGE)
        ]
        for seen in found:
            self._supervisor.task_seen(seen)
        self._supervisor.not_there(before - {seen.task.uid for seen in found})
