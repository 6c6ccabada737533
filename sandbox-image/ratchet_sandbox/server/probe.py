"""Whether anything keeps this pod from where its network policy lets it not go.

A cluster whose network plugin does not enforce policies takes them and says nothing. So the server,
which shares the pod's network with the shell and is not the model's, tries to connect to what is
known to listen and is denied by the policy: one connection that comes about is the proof that the
policy holds nothing back. Nothing is sent on it.

All happens in the server's event loop: targets are addresses, so that no name is looked up (asyncio
does that in a thread).
"""

import asyncio
import contextlib
import errno
import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

TARGETS_VARIABLE: Final = "RATCHET_PROBE_TARGETS"
"""Targets as `address:port`, `[address]:port` for IPv6, separated by commas."""
LASTS_S: Final = 5.0
"""How long something that connects is tried again: plugins apply a policy some time after the pod
has started."""
TRY_S: Final = 2.5
"""How long one connection may take. Linux sends the first packet again after 1 s: that one is lost
does not look like a policy."""
PAUSE_S: Final = 0.25
FRESH_S: Final = 30.0
"""How long a finding is given again, before whoever asks has it found anew."""
REFUSALS: Final = frozenset(
    {errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM}
)
"""How the system reports a connection that a packet filter drops or rejects."""


class Verdict(StrEnum):
    """What trying has shown."""

    ENFORCED = "Enforced"
    """Nothing could be reached."""
    OPEN = "Open"
    """Something could, also at last."""
    UNKNOWN = "Unknown"
    """Trying told nothing."""
    PROBING = "Probing"
    """It is still being tried."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, and the sentence why."""

    verdict: Verdict
    message: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection is tried to."""

    address: str
    port: int

    def __str__(self) -> str:
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


@dataclass(frozen=True, slots=True)
class Tried:
    """How one try ended. `connected` is None where it tells nothing about a policy."""

    target: Target
    connected: bool | None
    how: str


PROBING: Final = Finding(Verdict.PROBING, "It is still being tried.")


class Probe:
    """Tries the targets when it is asked to, and remembers what came of it for a while."""

    def __init__(
        self, targets: tuple[Target, ...], *, lasts_s: float = LASTS_S, try_s: float = TRY_S,
        fresh_s: float = FRESH_S,
    ) -> None:  # fmt: skip
        self._targets = targets
        self._lasts_s = lasts_s
        self._try_s = try_s
        self._fresh_s = fresh_s
        self._finding = PROBING
        self._found_at: float | None = None
        self._work: asyncio.Task[None] | None = None

    async def finding(self, wait_s: float) -> Finding:
        """What was found, at the latest after `wait_s` seconds: PROBING if nothing is by then.

        Nothing is tried before somebody asks: an answer to the operator shows that the pod's
        network is up, and a pod that has none yet would look like one that may go nowhere.
        """
        if self._work is None and not self._is_fresh():
            self._finding = PROBING
            self._work = asyncio.create_task(self._try())
        if self._work is not None:
            await asyncio.wait([self._work], timeout=wait_s)
        return self._finding

    async def stop(self) -> None:
        """Give up what is being tried."""
        if self._work is not None:
            self._work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._work

    def _is_fresh(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._found_at is not None and now - self._found_at < self._fresh_s

    async def _try(self) -> None:
        try:
            self._finding = await self._find()
            self._found_at = asyncio.get_running_loop().time()
        finally:
            self._work = None

    async def _find(self) -> Finding:
        if not self._targets:
            return Finding(
                Verdict.UNKNOWN,
                "Nothing was tried: the sandbox was given no address that its policy denies.",
            )
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._lasts_s
        while True:
            tried = await asyncio.gather(*(_connect(t, self._try_s) for t in self._targets))
            if all(one.connected is False for one in tried) or loop.time() + PAUSE_S >= ends:
                return concluded(tried, self._lasts_s)
            await asyncio.sleep(PAUSE_S)


def concluded(tried: list[Tried], lasted_s: float) -> Finding:
    """What the last round says."""
    told = ", ".join(f"{one.target} {one.how}" for one in tried)
    if any(one.connected for one in tried):
        return Finding(
            Verdict.OPEN,
            f"The sandbox could connect to what its network policy denies, for {lasted_s:g} s: "
            f"{told}. The cluster's network plugin does not enforce policies, or another policy "
            "of the namespace allows it.",
        )
    if any(one.connected is None for one in tried):
        return Finding(Verdict.UNKNOWN, f"Trying to connect told nothing: {told}.")
    return Finding(
        Verdict.ENFORCED,
        f"The sandbox could not connect to what its network policy denies: {told}.",
    )


async def _connect(target: Target, within_s: float) -> Tried:
    """Try one connection, and close it at once."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within_s):
            transport, _ = await loop.create_connection(
                asyncio.Protocol, target.address, target.port
            )
    except TimeoutError:
        return Tried(target, False, "did not answer")
    except OSError as error:
        return Tried(target, False if error.errno in REFUSALS else None, _name(error))
    transport.abort()
    return Tried(target, True, "answered")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def targets_of(text: str) -> tuple[Target, ...]:
    """The targets that `TARGETS_VARIABLE` names. Raises ValueError for what is no address and port."""
    return tuple(_target(one.strip()) for one in text.split(",") if one.strip())


def _target(text: str) -> Target:
    host, _, port = text.rpartition(":")
    address = host.removeprefix("[").removesuffix("]")
    try:
        if 0 < int(port) < 65536:
            return Target(str(ipaddress.ip_address(address)), int(port))
        raise ValueError(port)
    except ValueError as error:
        raise ValueError(
            f"{TARGETS_VARIABLE}: {text!r} is no address and port; give 10.96.0.1:443, or "
            "[fd00::1]:443, separated by commas"
        ) from error
