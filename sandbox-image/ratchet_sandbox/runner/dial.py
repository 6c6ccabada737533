"""The way to the server: dial, prove oneself, take messages, dial again. For ever."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import FromRunner, FromServer, Hello, ProtocolError, Welcome
from ratchet_sandbox.runner.config import Config

log = logging.getLogger(__name__)

FIRST_DELAY_S: Final = 0.05
LONGEST_DELAY_S: Final = 1.0
_GREETING_S: Final = 5.0

Take = Callable[[FromServer], None]
Holds = Callable[[], tuple[tuple[str, ...], tuple[str, ...]]]


class Line:
    """The connection to the server. What is sent while there is none is dropped: the next
    hello says which results are waiting, and the server asks for them."""

    def __init__(self, config: Config, shell: str, *, holds: Holds, take: Take) -> None:
        """`holds` gives the keys (running, finished) for a hello; `take` gets each message."""
        self._config = config
        self._shell = shell
        self._holds = holds
        self._take = take
        self._writer: asyncio.StreamWriter | None = None

    def send(self, message: FromRunner) -> None:
        """Send if connected."""
        if self._writer and not self._writer.is_closing():
            self._writer.write(protocol.encode(message))

    async def keep(self) -> None:
        """Be connected, for ever; waits 50 ms after a connection's end, then up to 1 s.

        Only one that has lasted ends the growing of the pauses: a server may greet and be lost.
        """
        delay, said = FIRST_DELAY_S, ""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                await self._serve()
                said = ""
            except (OSError, ProtocolError, asyncio.LimitOverrunError) as error:
                if repr(error) != said:
                    log.info("no connection to the server, trying on: %r", error)
                said = repr(error)
            if clock() - began > LONGEST_DELAY_S:
                delay = FIRST_DELAY_S
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY_S)

    async def _serve(self) -> None:
        """One connection, to its end. Raises if it was never a good one."""
        word = (self._config.control / "word").read_text(encoding="ascii", errors="replace")
        reader, writer = await asyncio.open_connection(
            self._config.host, self._config.port, limit=protocol.LINE_LIMIT
        )
        try:
            # No await between asking what is held and being ready to send: a call that ends from
            # here on is said on this connection, after the hello that called it running.
            running, finished = self._holds()
            hello = Hello(word.strip(), protocol.PROTOCOL, self._shell, running, finished)
            self._writer = writer
            self.send(hello)
            async with asyncio.timeout(_GREETING_S):
                first = await _next(reader)
            if not isinstance(first, Welcome):
                raise ProtocolError("it did not greet back")
            log.info("connected to the server")
            while message := await _next(reader):
                self._take(message)
        finally:
            self._writer = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _next(reader: asyncio.StreamReader) -> FromServer | None:
    """The next message, None at the end of the connection."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    return protocol.decode_from_server(line)
