"""The runner's child processes: starting them and collecting every zombie.

One place waits for children, because PID 1 inherits all orphans of its container and must
collect them too, and two waiters would steal each other's exit codes.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

CHUNK: Final = 64 * 1024
ERRORS_LIMIT: Final = 4 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """A child process; `ended` becomes its exit code, negative for a signal."""

    pid: int
    ended: asyncio.Future[int]


@dataclass(frozen=True, slots=True)
class Completed:
    """A helper that ran. `code` is None if it was stopped: timeout, cancel, or enough output."""

    code: int | None
    output: bytes
    errors: str
    size: int
    """Bytes of output there were, kept or not."""
    timed_out: bool = False


class Children:
    """Starts children and collects them. Use as an async context manager, in the main thread."""

    def __init__(self, *, adopts_orphans: bool = False) -> None:
        self._adopts = adopts_orphans
        self._running: dict[int, tuple[Child, subprocess.Popen[bytes]]] = {}
        self._helpers: set[int] = set()
        self._ignores_hangup = False

    async def __aenter__(self) -> "Children":
        # As nohup(1) leaves it. A shell can neither heed nor trap what was ignored at its start.
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        if self._ignores_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._collect)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        if self._ignores_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    @property
    def helpers(self) -> frozenset[int]:
        """Pids of the runner's own tools (git, ripgrep): not the model's."""
        return frozenset(self._helpers)

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        leads_session: bool = True,
    ) -> Child:
        """Start a process in a session, or at least a process group, of its own.

        Raises OSError if it cannot be started.
        """
        process = subprocess.Popen(
            argv,
            env=dict(environment),
            cwd=folder,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=leads_session,
            process_group=None if leads_session else 0,
        )
        child = Child(process.pid, asyncio.get_running_loop().create_future())
        self._running[child.pid] = (child, process)
        return child

    async def run(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        limit: int,
        timeout: float,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stop: "asyncio.Future[None] | None" = None,
        stop_after_lines: int | None = None,
    ) -> Completed:
        """Run a helper to its end, keeping at most `limit` bytes of its output.

        It is killed after `timeout` seconds, when `stop` is done, or when it has written
        `stop_after_lines` lines. Raises OSError if it cannot be started.
        """
        out_end, out_start = os.pipe()
        error_end, error_start = os.pipe()
        try:
            child = self.start(
                argv, environment=environment, folder=folder,
                stdin=stdin, stdout=out_start, stderr=error_start,
            )  # fmt: skip
        except OSError:
            os.close(out_end)
            os.close(error_end)
            raise
        finally:
            os.close(out_start)
            os.close(error_start)
        self._helpers.add(child.pid)
        out = Collected(out_end, limit, stop_after_lines)
        errors = Collected(error_end, ERRORS_LIMIT)
        try:
            finished = asyncio.gather(child.ended, out.done, errors.done)
            waiters: list[asyncio.Future[Any]] = [finished, out.enough, *([stop] if stop else [])]
            done, _ = await asyncio.wait(
                waiters, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            whole = finished in done
        finally:
            kill_group(child.pid)
            await asyncio.shield(child.ended)
            out.close()
            errors.close()
            self._helpers.discard(child.pid)
        return Completed(
            code=child.ended.result() if whole else None,
            output=bytes(out.data),
            errors=errors.data.decode(errors="replace").strip(),
            size=out.size,
            timed_out=not done,
        )

    def _collect(self) -> None:
        if self._adopts:
            with contextlib.suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                    self._ended(*found)
            return
        for pid in list(self._running):
            with contextlib.suppress(ChildProcessError):
                found = os.waitpid(pid, os.WNOHANG)
                if found != (0, 0):
                    self._ended(*found)

    def _ended(self, pid: int, status: int) -> None:
        child, process = self._running.pop(pid, (None, None))
        if child is None or process is None:
            return  # an orphan that was ours only to collect
        process.returncode = os.waitstatus_to_exitcode(status)
        if not child.ended.done():
            child.ended.set_result(process.returncode)


class Collected:
    """What comes out of a pipe: the first `limit` bytes are kept, all of it is read."""

    def __init__(self, descriptor: int, limit: int, enough_lines: int | None = None) -> None:
        self.data = bytearray()
        self.size = 0
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = loop.create_future()
        self.enough: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._limit = limit
        self._lines_left = enough_lines
        self._descriptor: int | None = descriptor
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, self._read, descriptor)

    def _read(self, descriptor: int) -> None:
        chunk = os.read(descriptor, CHUNK)
        if not chunk:
            self.close()
            return
        self.size += len(chunk)
        self.data += chunk[: self._limit - len(self.data)]
        if self._lines_left is not None:
            self._lines_left -= chunk.count(b"\n")
            if self._lines_left <= 0 and not self.enough.done():
                self.enough.set_result(None)

    def close(self) -> None:
        """Stop reading; what came so far stays in `data`."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        if not self.done.done():
            self.done.set_result(None)


def kill_group(pid: int) -> None:
    """SIGKILL the process group that this child leads, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
