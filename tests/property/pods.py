"""Sandbox pods: the real server's ledger and rules, and a runner that works in pretended time.

What a server keeps in memory goes with it when it restarts, its ledger stays; a runner keeps a
result until the server has it, and what a runner was doing is lost with it. The runner does
whatever it is told: it would run a call a second time, so that a server that asks for it is seen.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Hello, Meta, Outcome, Result
from ratchet_sandbox.server import ledger as ledgers
from ratchet_sandbox.server.calls import Calls
from ratchet_sandbox.server.ledger import Ledger
from ratchet_sandbox.server.link import Answer, RunnerAway, RunnerLink, Session
from ratchet_sandbox.server.word import ControlWord

HOP_S = 0.001
"""A message between server and runner."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What calls do. All three are pure functions of the call's key."""

    seconds: Callable[[str], float]
    fails: Callable[[str], Outcome | None]
    began: Callable[[Pod, str, str], None]
    """Told of each call that begins, for real: its pod, key and tool."""


@dataclass(slots=True)
class Runner:
    """The process in the shell container. A new one has another `shell` and knows nothing."""

    pod: Pod
    shell: str
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    finished: dict[str, Result] = field(default_factory=dict)
    session: Session | None = None

    def take(self, message: protocol.FromServer) -> None:
        """Do what the server says."""
        match message:
            case protocol.Run(key, tool, arguments):
                self.pod.tools.began(self.pod, key, tool)
                self.running[key] = asyncio.create_task(self._work(key, tool, arguments))
            case protocol.Cancel(key) if key in self.running:
                self.running.pop(key).cancel()
                self._end(Result(key, Outcome.KILLED, "[killed]"))
            case protocol.Ack(key):
                self.finished.pop(key, None)
            case protocol.Resend(key):
                self._say(self.finished[key])
            case protocol.Digest(id, path):
                self._say(protocol.Digests(id, self.pod.digest(path)))
            case protocol.Diff(id):
                self._say(self.pod.patch(id))
            case _:
                pass

    def die(self) -> None:
        """Everything that it does ends, and nobody can tell how."""
        for work in self.running.values():
            work.cancel()
        self.running.clear()

    async def _work(self, key: str, tool: str, arguments: dict[str, Any]) -> None:
        half = self.pod.tools.seconds(key) / 2
        await asyncio.sleep(half)
        result = self._result(key, tool, arguments)
        await asyncio.sleep(half)
        self.running.pop(key, None)
        self._end(result)

    def _result(self, key: str, tool: str, arguments: dict[str, Any]) -> Result:
        """The effect of a call, which happens half-way, and what is said of it."""
        bad = self.pod.tools.fails(key)
        if bad is not None:
            return Result(key, bad, "it did not end well", Meta(exit_code=1))
        files, path = self.pod.files, str(arguments.get("path", ""))
        if tool == "write_file":
            files[path] = arguments["content"]
        if tool in ("read_file", "search_replace") and path not in files:
            return Result(key, Outcome.FAILED, f"there is no file {path}")
        if tool == "search_replace":
            files[path] = arguments["content"]
        content = files[path] if tool == "read_file" else f"{tool} {arguments}"
        return Result(key, Outcome.OK, content, Meta(exit_code=0))

    def _end(self, result: Result) -> None:
        self.finished[result.key] = result
        self._say(result)

    def _say(self, message: Result | Answer) -> None:
        session = self.session
        if session is not None:
            asyncio.get_running_loop().call_later(HOP_S, self.pod.hear, session, message)


class Pipe(Session):
    """A connection between a server and a runner."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner.shell, cast(asyncio.StreamWriter, None))
        self._runner = runner
        self.closed = False

    def send(self, message: protocol.FromServer) -> None:
        asyncio.get_running_loop().call_later(HOP_S, self._arrive, message)

    def _arrive(self, message: protocol.FromServer) -> None:
        if not self.closed and self._runner.session is self:
            self._runner.take(message)

    def close(self) -> None:
        self.closed = True
        for future in self._asked.values():
            if not future.done():
                future.set_exception(RunnerAway("the runner's connection was lost"))


@dataclass(slots=True)
class Server:
    """One life of the server's process."""

    calls: Calls
    link: RunnerLink
    requests: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    """Those under way, in the order in which they came, so that they end in that order too."""
    down: bool = False


@dataclass(slots=True)
class Pod:
    """One generation of a task's sandbox, once its containers run."""

    name: str
    path: str
    uid: str
    task_uid: str
    generation: int
    tools: Tools
    files: dict[str, str] = field(default_factory=dict)
    alive: bool = True
    shells: int = 0
    network: str = "Enforced"
    """What it finds out of its network."""
    confined: bool = False
    """Whether it has told anybody that its network policy holds."""
    ledger: Ledger = field(init=False)
    server: Server = field(init=False)
    runner: Runner | None = None

    def __post_init__(self) -> None:
        self.ledger = _new_ledger(f"ledger-{self.uid}", self.task_uid)
        self.start_server()

    def start_server(self) -> None:
        """A new process on the old ledger; no runner has dialled it yet."""
        calls = Calls(self.ledger)
        link = RunnerLink(cast(ControlWord, None), calls)
        calls.attach(link)
        self.server = Server(calls, link)

    def take_over(self, ledger: Ledger, files: dict[str, str]) -> None:
        """Begin on the claim of a pod that is no more."""
        self.ledger, self.files = ledger, files
        self.start_server()

    def stop_server(self) -> None:
        """It is gone, with all connections and all that it kept in memory."""
        self.server.down = True
        if self.server.link.session is not None:
            self.server.link.session.close()
        for request in tuple(self.server.requests):
            request.cancel()
        if self.ledger._db.in_transaction:  # what was not committed is lost
            self.ledger._db.rollback()
        if self.runner is not None:
            self.runner.session = None

    def start_runner(self) -> None:
        """A new process in the shell container."""
        self.shells += 1
        self.runner = Runner(self, f"shell-{self.uid}-{self.shells}")

    def stop_runner(self) -> None:
        """It is gone, with all that it ran and all that it had kept."""
        if self.runner is not None:
            self.runner.die()
            self.runner = None
        link = self.server.link
        if link.session is not None:
            link.session.close()
            link.session = None

    def dial(self) -> None:
        """The runner dials the server, and says what it has."""
        runner, server = self.runner, self.server
        if runner is None or server.down or not self.alive or runner.session is not None:
            return
        pipe = Pipe(runner)
        runner.session = server.link.session = pipe
        hello = Hello("", protocol.PROTOCOL, runner.shell, (*runner.running,), (*runner.finished,))
        server.calls.joined(pipe, hello)

    def hear(self, session: Session, message: Result | Answer) -> None:
        """What a runner says arrives, if its connection is still the one that counts."""
        if session is not self.server.link.session or self.server.down:
            return
        if isinstance(message, Result):
            self.server.calls.ended(session, message)
        else:
            session.answer(message)

    def die(self) -> None:
        """The pod is gone with its volumes, and whatever ran there has ended."""
        self.alive = False
        self.stop_runner()
        self.stop_server()

    @property
    def ready(self) -> bool:
        """Whether server and runner answer."""
        return self.alive and not self.server.down and self.server.link.session is not None

    def digest(self, path: str) -> str | None:
        text = self.files.get(path)
        return None if text is None else "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def patch(self, id: str) -> protocol.Patch:
        text = json.dumps(self.files, sort_keys=True).encode()
        digest = hashlib.sha256(text).hexdigest()
        return protocol.Patch(id, "0" * 40, base64.b64encode(text).decode(), len(text), digest)


def _new_ledger(id: str, task_uid: str) -> Ledger:
    """A ledger in memory: the same statements as on disk."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(ledgers._SCHEMA)
    return Ledger(db, id, task_uid, 0)
