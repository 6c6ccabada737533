"""kopf's part of the process: how it logs in, how it begins, and that it ends after our loops.

kopf's own way out (`kopf.operator`) takes every task of the process for a handler of its own: after
a SIGTERM it lets them all go on for 5 s, and cancels them then. Our loops must end at once instead,
and the Lease be free for the next process; so signals are ours, and kopf is the last to be ended.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import kopf

LOGIN_LIFE = timedelta(minutes=10)
"""How long kopf uses one reading of the credentials. The kubelet writes a new token when 80 % of
the old one's life have passed, which is 12 minutes before the end of the usual hour
(kubernetes.io, "Configure Service Accounts for Pods")."""
LOGIN_PAUSE_S = 5.0
"""Between two logins: what is refused is not asked for without end at full speed."""
ENDS_WITHIN_S = 5.0
"""How long kopf may take to end; it keeps nothing that could be lost."""


class Login:
    """Reads the credentials whenever kopf asks for them: from the service account or a kubeconfig.

    kopf takes no credentials that were refused once, and ends the process if there are no others.
    A refusal may be the API server's mistake, as while it starts, so each reading counts as new:
    its time of expiry makes it so.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._read_at = float("-inf")

    async def read(self, **kwargs: Any) -> kopf.ConnectionInfo | None:
        """What kopf connects with; None if there are no credentials. For `kopf.on.login`."""
        await self._sleep(max(0.0, self._read_at + LOGIN_PAUSE_S - self._clock()))
        self._read_at = self._clock()
        found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        return found and replace(found, expiration=datetime.now(UTC) + LOGIN_LIFE)


class Watch:
    """kopf's tasks and the signals of the process, as a context manager."""

    def __init__(
        self,
        registry: kopf.OperatorRegistry,
        settings: kopf.OperatorSettings,
        namespaces: Collection[str],
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._namespaces = namespaces
        self._signalled = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        tasks = await kopf.spawn_tasks(
            registry=self._registry,
            settings=self._settings,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )
        self._tasks = set(tasks)
        for number in (signal.SIGTERM, signal.SIGINT):  # in the place of kopf's handlers
            asyncio.get_running_loop().add_signal_handler(number, self._signalled.set)
        return self

    async def until_stopped(self) -> None:
        """Wait for SIGTERM or SIGINT. Raises what ended kopf, if that came first."""
        signalled = asyncio.create_task(self._signalled.wait())
        try:
            done, _ = await asyncio.wait(
                {signalled, *self._tasks}, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            signalled.cancel()
        for task in done - {signalled}:
            task.result()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        ended, _ = await asyncio.wait(self._tasks, timeout=ENDS_WITHIN_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # what ended kopf was raised above; the rest follows from it
