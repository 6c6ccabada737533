"""A tool's round trip as the operator sees it, and the bare things that it cannot do without.

The no-op is `read_file` of a file of one line: it goes through the ledger and to the runner as any
call does, and starts no process.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
from ratchet.edges.certificates import make_identity, pinned_context

from benchmarks.bare import Call, NotMeasured, session_at
from benchmarks.sandbox.figures import Round
from tests.e2e.box import Box, shown
from tests.e2e.operator_process import REPO, free_port

NAME = "floor.sandbox.ratchet"
UP_WITHIN_S = 20.0
WARM_UP = 5
"""Rounds that are not counted."""
BODY = '{"tool":"read_file","arguments":"{\\"path\\":\\"one-line\\"}","epoch":1}'
COMMITS = 2


async def measure(box: Box, folder: Path, rounds: int) -> list[Round]:
    """All calls in turn, so that a drift of the machine's speed touches all alike."""
    await _must(box, "write_file", path="one-line", content="one line\n")
    found = []
    async with bare_https(folder) as (session, call):
        with bare_ledger(folder) as database:
            for number in range(WARM_UP + rounds):
                found.append(
                    Round(
                        noop=await _must(box, "read_file", path="one-line"),
                        bash=await _must(box, "bash", command="true"),
                        commits=commits(database, number),
                        https=await call.send(session, number),
                        bare_bash=await bare_bash(),
                    )
                )
    return found[WARM_UP:]


async def _must(box: Box, tool: str, **arguments: str) -> float:
    order = box.order(tool, **arguments)
    begin = time.perf_counter()
    receipt = await box.sandbox.run(order)
    ms = 1000 * (time.perf_counter() - begin)
    if receipt.outcome != "Ok":
        raise NotMeasured(f"{tool} in sandbox {box.pod}: {shown(receipt)}")
    return ms


async def bare_bash() -> float:
    """Start `bash -c true` on this machine and wait for its end, in ms."""
    begin = time.perf_counter()
    process = await asyncio.create_subprocess_exec("bash", "-c", "true")
    await process.wait()
    return 1000 * (time.perf_counter() - begin)


@contextmanager
def bare_ledger(folder: Path) -> Iterator[sqlite3.Connection]:
    """A database with the ledger's settings, on the disk that holds the pods' volumes."""
    home = folder / "floor"
    home.mkdir(exist_ok=True)
    database = sqlite3.connect(home / "ledger.db", isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, content TEXT)")
        yield database
    finally:
        database.close()
        shutil.rmtree(home)


def commits(database: sqlite3.Connection, number: int) -> float:
    """Milliseconds of two commits."""
    begin = time.perf_counter()
    for part in range(COMMITS):
        database.execute("INSERT INTO calls VALUES (?, ?)", (f"{number}/{part}", BODY))
    return 1000 * (time.perf_counter() - begin)


@asynccontextmanager
async def bare_https(folder: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, Call]]:
    """A server of its own process on the loopback address, and a call of it."""
    identity, port = make_identity(NAME), free_port()
    home = folder / "https"
    home.mkdir()
    (home / "tls.crt").write_text(identity.certificate)
    (home / "tls.key").write_text(identity.key)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.sandbox.https", str(home), str(port)), cwd=REPO
    )
    call = Call("PUT", "", BODY, server_name=NAME)
    url = f"https://127.0.0.1:{port}/"
    try:
        async with session_at(url, pinned_context(identity.certificate)) as session:
            await _until_it_answers(session, call)
            yield session, call
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(home)


async def _until_it_answers(session: aiohttp.ClientSession, call: Call) -> None:
    async with asyncio.timeout(UP_WITHIN_S):
        while True:
            try:
                await call.send(session, 0)
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
            else:
                return
