"""The runner as a whole: its parts wired together, and each message given to the right one."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Mapping
from typing import Any

from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import (
    Ack,
    Cancel,
    Diff,
    Digest,
    Digests,
    Error,
    FromServer,
    Read,
    Resend,
    Run,
    Welcome,
)
from ratchet_sandbox.runner import workspace
from ratchet_sandbox.runner.calls import Calls
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.dial import Line
from ratchet_sandbox.runner.processes import Children
from ratchet_sandbox.runner.shell import Shell

log = logging.getLogger(__name__)

Answer = Digests | protocol.Patch | protocol.File | Error


class Runner:
    """One runner process; its id is new each time, so that the server sees a new one."""

    def __init__(self, config: Config, children: Children, outer: Mapping[str, str]) -> None:
        self.id = secrets.token_hex(8)
        self._config = config
        self._children = children
        self._shell = Shell(config, children, outer)
        self._line = Line(config, self.id, holds=self._holds, take=self._take)
        self._calls = Calls(config, children, self._shell, self._line.send)
        self._asides: set[asyncio.Task[None]] = set()

    async def work(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then kill everything the shell started."""
        keeping = asyncio.create_task(self._line.keep())
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait((keeping, stopping), return_when=asyncio.FIRST_COMPLETED)
            if keeping in done:
                keeping.result()  # it never ends but by a fault: let that be seen
        finally:
            for task in (keeping, stopping, *self._asides):
                task.cancel()
            await self._shell.close()
            self._calls.close()

    def _holds(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self._calls.running, self._calls.finished

    def _take(self, message: FromServer) -> None:
        match message:
            case Run():
                self._calls.run(message)
            case Cancel(key):
                self._calls.cancel(key)
            case Ack(key):
                self._calls.ack(key)
            case Resend(key):
                self._calls.resend(key)
            case Digest(id, path):
                self._aside(id, self._digest(id, path))
            case Diff(id):
                self._aside(id, workspace.diff(self._config, self._children, id))
            case Read(id, path):
                self._aside(id, asyncio.to_thread(workspace.read, self._config, id, path))
            case Welcome():
                pass

    async def _digest(self, id: str, path: str) -> Digests:
        return Digests(id, await asyncio.to_thread(workspace.digest, self._config, path))

    def _aside(self, id: str, answering: Coroutine[Any, Any, Answer]) -> None:
        """Answer a question beside the calls, which it does not disturb."""
        task = asyncio.create_task(self._answer(id, answering))
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def _answer(self, id: str, answering: Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = await answering
        except workspace.Refused as refused:
            answer = Error(id, refused.code, str(refused)[: protocol.TEXT_LIMIT], refused.size)
        except OSError as error:
            answer = Error(id, "failed", f"the workspace cannot be read: {error}")
        self._line.send(answer)
