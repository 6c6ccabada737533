"""One running bash or sh: its pipes, what it reports, and that it ended."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ratchet_sandbox.runner import crowd, driver
from ratchet_sandbox.runner.processes import Child, Children

_CHUNK: Final = 64 * 1024
_OVERLAP: Final = 256
"""Bytes kept from one read of the report's pipe to the next: a report may be torn."""

_PLACES: Final = "/bin:/usr/bin:/usr/local/bin"


class ShellProcess:
    """A shell that reads its script from a pipe. `report` and `saved` belong to one nonce."""

    def __init__(
        self, child: Child, path: Path, *, bash: bool, control: int, state: int, report: int
    ) -> None:
        loop = asyncio.get_running_loop()
        self.child = child
        self.path = path
        self.bash = bash
        self.report: asyncio.Future[driver.Report] = loop.create_future()
        self.saved: asyncio.Future[bytes] = loop.create_future()
        self._nonce = ""
        self._tail = b""
        self._data = bytearray()
        self._control: int | None = control
        self._readers = {state: self._take_state, report: self._take_report}
        self._state = state
        for descriptor in (control, state, report):
            os.set_blocking(descriptor, False)
        for descriptor in self._readers:
            loop.add_reader(descriptor, self._read, descriptor)

    @property
    def alive(self) -> bool:
        return self._control is not None and not self.child.ended.done()

    def expect(self, nonce: str) -> None:
        """From now on, reports with this nonce count; others are noise."""
        loop = asyncio.get_running_loop()
        self._nonce = nonce
        self._data.clear()
        self.report = loop.create_future()
        self.saved = loop.create_future()

    def send(self, text: str) -> bool:
        """Write lines for the shell to read; False if it does not take them."""
        if self._control is None:
            return False
        data = text.encode(errors="surrogateescape")
        try:
            return os.write(self._control, data) == len(data)
        except (BlockingIOError, BrokenPipeError):
            return False

    def drain(self) -> None:
        """Take what the pipes hold: needed when the end of the process was seen first."""
        for descriptor in list(self._readers):
            while self._read(descriptor):
                pass

    def close(self) -> None:
        """Let go of the pipes. A shell that still lives then reads the end of its script."""
        loop = asyncio.get_running_loop()
        for descriptor in self._readers:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._readers = {}
        if self._control is not None:
            os.close(self._control)
            self._control = None

    def _read(self, descriptor: int) -> int:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return 0
        if data:
            self._readers[descriptor](data)
        else:
            asyncio.get_running_loop().remove_reader(descriptor)
        return len(data)

    def _take_state(self, data: bytes) -> None:
        if len(self._data) <= driver.STATE_LIMIT:
            self._data += data

    def _take_report(self, data: bytes) -> None:
        text = self._tail + data
        for kind, nonce, code in driver.reports(text):
            if nonce != self._nonce:
                continue
            if kind == "s" and not self.saved.done():
                while self._read(self._state):  # it was written before this report
                    pass
                self.saved.set_result(bytes(self._data))
            elif kind in "ex" and not self.report.done():
                self.report.set_result(driver.Report(code, kind == "x"))
        self._tail = text[-_OVERLAP:]


def find_shell(search_path: str) -> tuple[Path, bool] | None:
    """The image's bash, else its sh, and whether it is bash; None if there is neither.

    `search_path`: folders joined by colons, looked at after the usual ones.
    """
    for name in ("bash", "sh"):
        if found := shutil.which(name, path=f"{_PLACES}:{search_path}"):
            return Path(found), name == "bash"
    return None


def start(
    children: Children, path: Path, *, bash: bool, environment: Mapping[str, str], folder: Path
) -> ShellProcess:
    """Start a shell in a process group of its own. Raises OSError if it cannot be started.

    It does not lead a session: the first terminal that a session's leader opens becomes its
    controlling terminal (tty_ioctl(4)), and the end of that one would end the shell (SIGHUP).
    """
    stdin, control = os.pipe()
    state, stdout = os.pipe()
    report, stderr = os.pipe()
    argv = [str(path), *(["--noprofile", "--norc"] if bash else [])]
    try:
        child = children.start(
            argv, environment=environment, folder=folder,
            stdin=stdin, stdout=stdout, stderr=stderr, leads_session=False,
        )  # fmt: skip
    except OSError:
        for descriptor in (control, state, report):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
    crowd.bound(child.pid)
    return ShellProcess(child, path, bash=bash, control=control, state=state, report=report)
