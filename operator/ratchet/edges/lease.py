"""The operator's Lease: at most one process takes tasks on, and a successor is quick.

Why not the client's own leader election: `docs/adr/0002-own-lease.md`. A lock like this cannot
fence: a process that was stopped for a minute still believes what it believed before. The fence is
the epoch in every write; the Lease keeps two processes from wasting each other's work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ratchet.edges import kube
from ratchet.edges.kube import Api, ApiError, ApiUnreachable

DURATION_S = 15.0
"""A Lease that nobody has renewed for so long may be taken."""
RENEW_EVERY_S = 5.0
RENEW_DEADLINE_S = 10.0
"""So long after its last renewal began the holder stops; 5 s before anybody else may begin."""
LOOK_EVERY_S = 1.0
"""How often one that waits for the Lease looks at it. A watch would be told sooner of a release, and
would have to be watched for silence; one small request a second is cheaper than that."""
REQUEST_TIMEOUT_S = 4.0
PROOF_WITHIN_S = 1.0
"""How long a holder whose time ran out while it stood still may take to prove that nobody followed."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody holds the Lease, or its holder has let its time run out."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The Lease names us."""


@dataclass(frozen=True, slots=True)
class Others:
    """Somebody else holds the Lease, at least until then (own monotonic clock)."""

    holder: str
    until: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease and when this version of it was first seen, by our own monotonic clock."""

    lease: Mapping[str, Any]
    at: float

    @property
    def version(self) -> str:
        return str(self.lease["metadata"]["resourceVersion"])

    @property
    def holder(self) -> str:
        return str((self.lease.get("spec") or {}).get("holderIdentity") or "")


def uptime() -> float:
    """Seconds since some moment, the time included that the machine was suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def judge(seen: Sighting | None, me: str, now: float) -> Free | Ours | Others:
    """Whose the Lease is. `now` is of the clock that `seen.at` was read from.

    No clock of another machine counts: a holder has its whole duration from the moment that we
    first saw its last renewal, whatever time the Lease itself tells.
    """
    if seen is None or not seen.holder:
        return Free()
    if seen.holder == me:
        return Ours()
    duration = float((seen.lease.get("spec") or {}).get("leaseDurationSeconds") or DURATION_S)
    until = seen.at + duration
    return Free() if now >= until else Others(seen.holder, until)


class LeaseLock:
    """One Lease that one process holds at a time.

    `holder` names the process. Where two processes can never live at once under one name, such as
    the containers of one pod, let it be the same for both: the later one then need not wait.
    `clock` never goes backwards and does not stop, in seconds.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        holder: str,
        clock: Callable[[], float] = uptime,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._clock = clock
        self._sleep = sleep
        self._seen: Sighting | None = None
        self._until = float("-inf")
        self._renewable = False
        """Whether the version that we know is that of our own last write, as far as we know."""
        self._looked_at = float("-inf")
        """When the API server last answered."""
        self.problem = "nobody has looked at the Lease yet"
        """Why the Lease is not held, or was not renewed; empty if all is well."""

    def held_until(self) -> float:
        """Until when work may be taken on, by `clock`; in the past if the Lease is not held."""
        return self._until

    def held(self) -> bool:
        """Whether work may be taken on now."""
        return self._clock() < self._until

    def stands_by(self) -> bool:
        """Whether somebody else holds the Lease and we have seen so of late."""
        now = self._clock()
        others = isinstance(judge(self._seen, self._holder, now), Others)
        return others and now < self._looked_at + RENEW_DEADLINE_S

    async def acquire(self) -> None:
        """Wait until the Lease is ours. An API server that is away is waited for too."""
        while not await self.attempt():
            await self._sleep(self._next_look())

    def _next_look(self) -> float:
        """Seconds until a look is worth while: at the latest when the Lease runs out."""
        now = self._clock()
        found = judge(self._seen, self._holder, now)
        left = found.until - now if isinstance(found, Others) else LOOK_EVERY_S
        return min(LOOK_EVERY_S, left)

    async def keep(self, regained: Callable[[], None] = lambda: None) -> None:
        """Renew until the Lease is lost, and return then: all work must stop.

        `regained` is called where it was not held for a moment: what ended then may begin again.

        A renewal that fails is tried again every second, up to the deadline. If that has passed
        because this process stood still, a write over our own last one tells whether anybody
        followed: it succeeds only if not, and then nothing was lost.
        """
        while self.held() or await self._nobody_followed(regained):
            await self._sleep(LOOK_EVERY_S)
            if self.held() and self._due():
                await self.attempt()
        self._renewable = False
        self._until = float("-inf")

    async def _nobody_followed(self, regained: Callable[[], None]) -> bool:
        if not (self._renewable and await self.attempt()):
            return False
        regained()
        return True

    def _due(self) -> bool:
        """Whether it is time to renew, or the last renewal failed."""
        return self._clock() >= self._until - RENEW_DEADLINE_S + RENEW_EVERY_S

    async def attempt(self) -> bool:
        """Take or renew the Lease if it is free or ours. Whether it is held now."""
        begun = self._clock()
        try:
            if not self._renewable:
                await self._look()
            found = judge(self._seen, self._holder, self._clock())
            if isinstance(found, Others):
                self._until = float("-inf")
                self.problem = f"Lease {self._namespace}/{self._name} is held by {found.holder}"
                return False
            await self._write(self._holder)
        except (ApiError, ApiUnreachable) as error:
            self._renewable = False
            self.problem = f"Lease {self._namespace}/{self._name} was not renewed: {error}"
            return self.held()
        self._until = begun + RENEW_DEADLINE_S
        self._renewable = True
        self.problem = ""
        return True

    def _timeout(self) -> float:
        """Seconds for a request: a holder does not wait for long beyond its time."""
        if self._until == float("-inf"):
            return REQUEST_TIMEOUT_S
        return min(REQUEST_TIMEOUT_S, max(PROOF_WITHIN_S, self._until - self._clock()))

    async def release(self) -> None:
        """Give the Lease back, so that a successor need not wait; best effort."""
        self._until = float("-inf")
        try:
            await self._look()
            if isinstance(judge(self._seen, self._holder, self._clock()), Ours):
                await self._write("")
        except (ApiError, ApiUnreachable):
            return  # it runs out by itself

    async def _look(self) -> None:
        """Read the Lease. The time of the sighting stays while its version does."""
        path = kube.lease(self._namespace, self._name)
        try:
            found = await self._api.request("GET", path, timeout_s=self._timeout())
        except ApiError as error:
            if error.status != 404:
                raise
            self._seen = None
            return
        sighting = Sighting(found, self._clock())
        self._looked_at = sighting.at
        if self._seen is None or self._seen.version != sighting.version:
            self._seen = sighting

    async def _write(self, holder: str) -> None:
        """Write the Lease over the version that was seen, or create it."""
        body = self._body(holder)
        if self._seen is None:
            path, method = kube.lease(self._namespace), "POST"
        else:
            path, method = kube.lease(self._namespace, self._name), "PUT"
        found = await self._api.request(method, path, body, timeout_s=self._timeout())
        self._seen = Sighting(found, self._clock())

    def _body(self, holder: str) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # for people to read
        before: Mapping[str, Any] = {} if self._seen is None else self._seen.lease.get("spec") or {}
        same = self._seen is not None and self._seen.holder == holder
        spec = {
            **before,
            "holderIdentity": holder,
            "leaseDurationSeconds": int(DURATION_S),
            "renewTime": now,
        }
        if not same and holder:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = before.get("leaseTransitions", 0) + (self._seen is not None)
        metadata: Mapping[str, Any] = {"name": self._name, "namespace": self._namespace}
        if self._seen is not None:
            metadata = self._seen.lease["metadata"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": dict(metadata),
            "spec": spec,
        }
