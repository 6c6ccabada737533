"""The outside ledger: a process of its own that notes what tools really did.

A tool sends one line, and is answered once the line is on disk. So a call that has ended well has
left its line, and a line that is there is of a command that ran, whoever was killed meanwhile.

    python -m tests.proof.ledger --host 127.0.0.1 --port 0 --file effects.txt
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
START_WITHIN_S = 20.0
LINE_MAX = 1000


@dataclass(slots=True)
class Ledger:
    """The ledger's process, and what is in its file. Use as `async with`."""

    host: str
    """Address to listen on, one that the tools reach."""
    file: Path
    port: int = 0
    """0 takes a free one."""
    process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Ledger:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it, and wait until it listens. Lines of an earlier start stay."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.proof.ledger",
            *("--host", self.host, "--port", str(self.port), "--file", str(self.file)),
            cwd=REPO,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(START_WITHIN_S):
            said = await self.process.stdout.readline()
        assert said, f"the ledger did not start on {self.host}:{self.port}"
        self.port = int(said)

    async def stop(self) -> None:
        """End it."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    def counts(self) -> Counter[str]:
        """How often each effect happened."""
        return Counter(self.file.read_text().split("\n")[:-1]) if self.file.exists() else Counter()

    def command(self, text: str) -> str:
        """A bash command that has the effect `text`, and ends well only if that is on disk."""
        to = f"/dev/tcp/{self.host}/{self.port}"
        return f'{{ echo "{text}" >&9; read -r noted <&9; }} 9<>{to} && [ "$noted" = noted ]'


class _Book:
    """The file. Each line is on disk before it is answered."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Note the lines of one connection."""
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                os.write(self._file, line)
                os.fsync(self._file)
                writer.write(b"noted\n")
        except (ConnectionError, ValueError):
            pass  # who sent it is gone, or sent no line: what was noted stays
        finally:
            writer.close()


async def _serve(host: str, port: int, file: Path) -> None:
    book = _Book(file)
    server = await asyncio.start_server(book.take, host, port, limit=LINE_MAX)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Listen until killed; prints the port."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.ledger", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--file", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(_serve(options.host, options.port, options.file))


if __name__ == "__main__":
    main()
