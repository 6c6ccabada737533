"""Running programs, and telling a waiting person what is going on."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.cluster.errors import ClusterError

HEARTBEAT = 20.0
"""Seconds between two signs of life of a long step."""


def find(name: str) -> str | None:
    """Path of a program, also where PATH lacks the folders of the administrator."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def say(line: str) -> None:
    """One line of progress, on stderr: stdout belongs to results."""
    print(line, file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    source: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120.0,
) -> str:
    """Run a program to its end and return its stdout.

    Raises `ClusterError` with the last lines of what it said if it fails or takes longer than
    `timeout` seconds.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL if source is None else source,
            capture_output=True,
            text=True,
            errors="replace",
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is missing: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(words[:6])} took more than {timeout:g} s") from error
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise ClusterError(f"{' '.join(words[:6])} failed ({done.returncode}):\n{tail}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], timeout: float = 20.0) -> bool:
    """Whether a program can be run and exits with 0."""
    try:
        run(argv, timeout=timeout)
    except ClusterError:
        return False
    return True


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print when a step starts, that it goes on, and when it ends, with seconds."""
    started = time.monotonic()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            say(f"  ... {name}: {time.monotonic() - started:.0f} s so far")

    say(f"> {name}")
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    except BaseException:
        say(f"x {name}: failed after {time.monotonic() - started:.1f} s")
        raise
    else:
        say(f"  {name}: done in {time.monotonic() - started:.1f} s")
    finally:
        ended.set()


def wait_until(what: str, is_true: Callable[[], bool], timeout: float) -> None:
    """Poll until a condition holds; raises `ClusterError` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not is_true():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(0.1)
