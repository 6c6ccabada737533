"""The runner's connection: who is connected, what it says, what it is asked.

The runner dials; one connection counts at a time. What arrives is decoded strictly, and a line
that is no message ends the connection: the runner dials again and says what it still has.
A runner must not act on lines of a connection after it has dialled a newer one.
"""

import asyncio
import itertools
import logging
import re
import sqlite3
from collections.abc import Callable
from typing import Final, Protocol

from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Digests, Error, File, FromServer, Hello, Patch, Result
from ratchet_sandbox.server.word import ControlWord

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S: Final = 5.0
STRANGERS_LIMIT: Final = 8
"""Connections that may wait for their hello to be read at the same time."""
UNSENT_LIMIT: Final = 16 * 1024 * 1024
"""Bytes that a runner which does not read may leave in our buffer."""
_SHELL = re.compile(r"[A-Za-z0-9-]{1,64}")

Answer = Digests | Patch | File | Error


class RunnerAway(Exception):
    """No runner is connected, or it went away or did not answer in time."""


class RunnerSlow(RunnerAway):
    """It is connected and did not answer in time."""


class Listener(Protocol):
    """Who is told what the runner says. May raise `sqlite3.Error`: the connection then ends."""

    def joined(self, session: "Session", hello: Hello) -> None: ...

    def ended(self, session: "Session", result: Result) -> None: ...


class Session:
    """One proven connection of a runner process; `shell` is that process's id."""

    def __init__(self, shell: str, writer: asyncio.StreamWriter) -> None:
        self.shell = shell
        self._writer = writer
        self._asked: dict[str, asyncio.Future[Answer]] = {}

    def send(self, message: FromServer) -> None:
        """Queue a message; a connection that is closing swallows it."""
        if self._writer.is_closing():
            return
        self._writer.write(protocol.encode(message))
        if self._writer.transport.get_write_buffer_size() > UNSENT_LIMIT:
            log.warning("runner %s does not read; closing its connection", self.shell)
            self.close()

    async def ask(self, id: str, message: FromServer, timeout: float) -> Answer:
        """Send a question and return its answer; `RunnerAway` if none comes in time."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[id] = future
        try:
            self.send(message)
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            raise RunnerSlow(f"the runner did not answer within {timeout:.0f} s") from error
        finally:
            del self._asked[id]

    def answer(self, answer: Answer) -> None:
        """Give an answer to who asked; one that nobody waits for is dropped."""
        future = self._asked.get(answer.id)
        if future and not future.done():
            future.set_result(answer)

    def close(self) -> None:
        for future in self._asked.values():
            if not future.done():
                future.set_exception(RunnerAway("the runner's connection was lost"))
        self._writer.close()


class RunnerLink:
    """Listens for runners and keeps the session that counts in `session`."""

    def __init__(self, word: ControlWord, listener: Listener) -> None:
        self._word = word
        self._listener = listener
        self._ids = itertools.count(1)
        self._strangers = 0
        self._server: asyncio.Server | None = None
        self.session: Session | None = None

    async def open(self, host: str, port: int) -> None:
        """Listen, then write the first word: whoever can read it finds the port open."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=64 * 1024)
        self._word.renew()

    def close(self) -> None:
        if self._server:
            self._server.close()
        if self.session:
            self.session.close()

    async def ask(self, make: Callable[[str], FromServer], timeout: float) -> Answer:
        """Ask the connected runner; `make` gets the id to put into the question."""
        if self.session is None:
            raise RunnerAway("no runner is connected")
        id = str(next(self._ids))
        return await self.session.ask(id, make(id), timeout)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = None
        lines = Lines(reader)
        try:
            hello = await self._greet(lines)
            if hello is None:
                return
            session = self._admit(hello, writer)
            self._listener.joined(session, hello)
            async for line in lines:
                self._take(session, line)
        except protocol.ProtocolError as error:
            log.warning("runner's connection closed: %s", error)
        except sqlite3.Error as error:
            # Not acknowledged, so the runner keeps its result and brings it again.
            log.error("ledger refused what the runner said: %s", error)
        except (OSError, TimeoutError) as error:
            log.info("runner's connection lost: %r", error)
        finally:
            if session:
                self._drop(session)
            writer.close()

    async def _greet(self, lines: "Lines") -> Hello | None:
        """The hello of a new connection, None if it is not right."""
        if self._strangers >= STRANGERS_LIMIT:
            return None
        self._strangers += 1
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                line = await anext(lines, b"")
        finally:
            self._strangers -= 1
        hello = protocol.decode_from_runner(line) if line else None
        if not isinstance(hello, Hello):
            return None
        if not self._word.spend(hello.word):
            log.warning("a runner was refused: wrong word")
            return None
        if hello.protocol != protocol.PROTOCOL or not _SHELL.fullmatch(hello.shell):
            log.error("a runner was refused: protocol %s, not %s: use server and runner images "
                      "of one release", hello.protocol, protocol.PROTOCOL)  # fmt: skip
            return None
        lines.limit = protocol.LINE_LIMIT
        return hello

    def _admit(self, hello: Hello, writer: asyncio.StreamWriter) -> Session:
        if self.session:
            self.session.close()
        session = self.session = Session(hello.shell, writer)
        log.info("runner %s connected", hello.shell)
        session.send(protocol.Welcome())
        return session

    def _take(self, session: Session, line: bytes) -> None:
        if session is not self.session:
            return  # a newer connection counts now
        message = protocol.decode_from_runner(line)
        if isinstance(message, Result):
            self._listener.ended(session, message)
        elif isinstance(message, Digests | Patch | File | Error):
            session.answer(message)

    def _drop(self, session: Session) -> None:
        session.close()
        if self.session is session:
            self.session = None
            log.info("runner %s disconnected", session.shell)


class Lines:
    """Lines of a stream, each at most `limit` bytes; a torn last line is not a line."""

    def __init__(self, reader: asyncio.StreamReader, limit: int = protocol.HELLO_LIMIT) -> None:
        self.limit = limit
        self._reader = reader
        self._buffer = bytearray()
        self._searched = 0

    def __aiter__(self) -> "Lines":
        return self

    async def __anext__(self) -> bytes:
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > self.limit:
                raise protocol.ProtocolError(f"line longer than {self.limit} bytes")
            chunk = await self._reader.read(64 * 1024)
            if not chunk:
                raise StopAsyncIteration
            self._buffer += chunk
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._searched = 0
        return line
