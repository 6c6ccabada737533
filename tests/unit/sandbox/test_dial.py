"""How often a runner dials a server that takes its connection and drops it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Welcome
from ratchet_sandbox.runner.dial import Line

from tests.unit.sandbox.runners import make_config


async def test_the_pauses_grow_where_each_connection_is_greeted_and_dropped(tmp_path: Path) -> None:
    at: list[float] = []
    enough = asyncio.Event()

    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at.append(asyncio.get_running_loop().time())
        await reader.readline()
        writer.write(protocol.encode(Welcome()))
        writer.close()
        if len(at) == 5:
            enough.set()

    server = await asyncio.start_server(drop, "127.0.0.1", 0)
    config = replace(make_config(tmp_path), port=server.sockets[0].getsockname()[1])
    (config.control / "word").write_text("word")
    line = Line(config, "shell", holds=lambda: ((), ()), take=lambda _: None)
    dialling = asyncio.create_task(line.keep())
    async with asyncio.timeout(20):
        await enough.wait()
    dialling.cancel()
    await asyncio.gather(dialling, return_exceptions=True)
    server.close()

    assert at[-1] - at[0] >= 0.05 + 0.1 + 0.2 + 0.4
