"""Sandboxes without processes: real servers in the test's own event loop, runners that do nothing.

For tests with hundreds of tasks at once, in which it does not matter what a command does: each call
ends Ok at once, with its key as its result, and the patch is empty.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from ratchet.build.pod import SERVER, SHELL
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Error, FromServer, Outcome, Result, Run
from ratchet_sandbox.server.__main__ import tls_context
from ratchet_sandbox.server.api import make_app
from ratchet_sandbox.server.calls import Calls
from ratchet_sandbox.server.ledger import Ledger
from ratchet_sandbox.server.link import Answer, RunnerLink, Session
from ratchet_sandbox.server.probe import Probe

from tests.proof.node import status
from tests.proof.node.pod import Pod

NO_COMMIT = "0" * 40


class InstantSession(Session):
    """A runner that has done each call before it is asked twice."""

    def __init__(self, calls: Calls) -> None:
        self.shell = "instant"
        self._calls = calls

    def send(self, message: FromServer) -> None:
        if isinstance(message, Run):
            done = Result(message.key, Outcome.OK, message.key)
            # Not now: who hands the call over begins to wait for its end only afterwards.
            asyncio.get_running_loop().call_soon(self._calls.ended, self, done)

    def close(self) -> None:
        """There is no connection."""


class InstantLink(RunnerLink):
    """The link to such a runner."""

    def __init__(self, calls: Calls) -> None:
        self.session = InstantSession(calls)

    async def ask(self, make: Callable[[str], FromServer], timeout: float) -> Answer:
        match make("1"):
            case protocol.Diff(id):
                return protocol.Patch(id, NO_COMMIT, base64.b64encode(b"").decode(), 0, "")
            case protocol.Digest(id):
                return protocol.Digests(id, None)
            case _:
                return Error("1", "not_found", "this sandbox has no files", None)


class BareSandbox(Pod):
    """A pod of that kind. It cannot be killed or given failpoints, only lost."""

    _running: web.AppRunner | None = None
    _ledger: Ledger | None = None

    @property
    def workspace(self) -> Path:
        """An empty folder."""
        return self._folders.workspace

    async def _run(self) -> None:
        folders = self._folders
        self._ledger = Ledger.open(folders.ledger / "ledger.db", self.task_uid)
        calls = Calls(self._ledger)
        link = InstantLink(calls)
        calls.attach(link)
        token = (folders.secret / "token").read_text()
        app = make_app(self._ledger, calls, link, Probe(()), token)
        self._running = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._running.setup()
        tls = tls_context(folders.secret)
        port = protocol.HTTPS_PORT
        await web.TCPSite(self._running, self.address, port, ssl_context=tls).start()
        self._changed.set()

    async def _stop(self, grace_s: float) -> None:
        if self._running is not None:
            await self._running.cleanup()
        if self._ledger is not None:
            self._ledger.close()

    def _seen(self) -> list[status.Seen]:
        up = self._running is not None and bool(self._running.addresses)
        began = self._prepared or datetime.now(UTC)
        names = (SERVER, SHELL)
        return [status.Seen(n, self._images[n], f"bare://{n}", began, ready=up) for n in names]

    def set_failpoint(self, *, server: str = "", runner: str = "") -> None:
        if server or runner:
            raise ValueError("a bare sandbox has no processes that failpoints could strike")

    def struck(self) -> list[str]:
        return []

    def tail(self, lines: int = 20) -> str:
        return f"bare sandbox at {self.address}, ready: {self.ready}"
