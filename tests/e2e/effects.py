"""A ledger outside of all that is killed: whatever a tool really did leaves a line here."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Effects:
    """Listens on an address that pods of the test's cluster reach; each line received is an effect."""

    host: str
    port: int = 0
    lines: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Effects:
        self._server = await asyncio.start_server(self._take, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.lines.append(line.decode().strip())
            self.changed.set()
        writer.close()

    @property
    def counts(self) -> Counter[str]:
        """How often each effect happened."""
        return Counter(self.lines)

    def command(self, text: str) -> str:
        """A bash command that has the effect `text`."""
        return f"echo {text} > /dev/tcp/{self.host}/{self.port}"

    async def wait_for(self, text: str, within_s: float = 60.0) -> None:
        """Wait until the effect has happened."""
        async with asyncio.timeout(within_s):
            while text not in self.lines:
                self.changed.clear()
                await self.changed.wait()
