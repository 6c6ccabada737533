"""The project's commands, for the cluster of the proof and no other."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.cluster import Cluster, ClusterError, current, folders

REPO = Path(__file__).resolve().parents[3]
NAME = "proof"
"""Of the cluster; its folder is build/cluster-proof."""
TOOK_TOO_LONG_S = 600.0
LINES_SHOWN = 15


def cluster() -> Cluster:
    """The cluster of the proof. Raises ClusterError if it is not up."""
    return current(folders.CHECKOUT / "build" / f"cluster-{NAME}")


async def run(log: Path, module: str, *words: str) -> None:
    """`python -m MODULE WORDS...`; what it prints goes to the log's end.

    Raises ClusterError with its last words where it fails.
    """
    with log.open("ab") as out:
        begin = out.tell()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *words,
            cwd=REPO,
            env={**os.environ, folders.NAME: NAME},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            # A Ctrl-C is for us alone: we end it, or wait for it where it cleans up.
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(TOOK_TOO_LONG_S):
            code = await process.wait()
    except BaseException:
        # With all that it started; it goes on to the caller.
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        raise
    if code != 0:
        raise ClusterError(f"`{module} {' '.join(words)}` failed:\n{_said(log, begin)}")


def _said(log: Path, begin: int) -> str:
    """The last lines of a file, from a place in it on."""
    lines = log.read_bytes()[begin:].decode(errors="replace").splitlines()
    return "\n".join(lines[-LINES_SHOWN:])
