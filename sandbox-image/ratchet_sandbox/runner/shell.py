"""The persistent shell: it outlives its process, because its state is saved after each call.

One command at a time. A command that ends the shell by itself (exit, set -e) is reported with
its code and the state it left. A shell that is lost without a word is started again in the state
before that command. Whatever is lost is said in the notes, for the model to read.
"""

import asyncio
import contextlib
import enum
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ratchet_sandbox.runner import checkpoint, driver, environment, family, home, shellprocess
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.output import Capture, Pump
from ratchet_sandbox.runner.processes import Children
from ratchet_sandbox.runner.shellprocess import ShellProcess

_START_S: Final = 10.0
_SAVE_S: Final = 10.0
_LAST_WORDS_S: Final = 1.0
"""How long a shell that says it ends may take to be gone."""
_SYNTAX_ERROR: Final = 2
"""Exit code of a script that cannot be parsed, as shells have it."""
_SYNTAX_LIMIT: Final = 64 * 1024
_LEFT_OVERS: Final = 64
"""Ended calls whose background processes may still write; the oldest is cut off beyond that."""


_KEPT: Final = (
    "[the shell was started again with the directory, variables, functions, aliases and options "
    "from before this command; background processes, traps and open descriptors are gone]"
)
_KEPT_SH: Final = (
    "[the shell was started again with the directory, exported variables, aliases and options "
    "from before this command; functions, other variables and background processes are gone]"
)
_LOST: Final = "[the shell ended without a word: killed, replaced by exec, or ended by an error]"
_KILLED: Final = "[the command and everything that the shell had started were killed]"
_EXITED: Final = (
    "[this ended the shell (exit or set -e); it is started again with its directory, variables, "
    "functions, aliases and options as they were at that point]"
)
_EXITED_UNSAVED: Final = (
    "[this ended the shell (exit or set -e); it is started again as it was before this command]"
)
_GONE: Final = (
    "[the shell had died since the last command and was started again with the state saved then]"
)
_RESTARTED: Final = (
    "[the sandbox's container was restarted since the last command: processes and changes outside "
    "the workspace are gone; the shell is as it was after the last command that ended]"
)
_BLANK: Final = "[the saved state could not be restored: this is a new shell in the workspace]"


class ShellError(Exception):
    """No shell can be started; the message says why."""


class End(enum.Enum):
    """How a command's run ended."""

    DONE = enum.auto()
    """It ended; the shell lives."""
    EXITED = enum.auto()
    """It ended and the shell with it, in an orderly way; its state is kept."""
    DIED = enum.auto()
    """The shell was killed, or replaced itself by another program."""
    TIMED_OUT = enum.auto()
    CANCELLED = enum.auto()


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's end. `exit_code`: None if the shell was killed by us."""

    how: End
    exit_code: int | None
    duration_s: float
    notes: tuple[str, ...] = ()


class Shell:
    """The task's shell. Start nothing before `run`; `close` ends everything it started."""

    def __init__(
        self,
        config: Config,
        children: Children,
        outer: Mapping[str, str],
        *,
        find: Callable[[str], tuple[Path, bool] | None] = shellprocess.find_shell,
    ) -> None:
        """`outer`: the container's environment; `find`: from a search path to the
        shell's path, and whether it is bash."""
        self._config = config
        self._find = find
        self._children = children
        self._marker = secrets.token_hex(16)
        self._environment = environment.shell_environment(
            outer, home=str(config.home), marker=self._marker
        )
        self._process: ShellProcess | None = None
        self._state = checkpoint.load(config.state)
        self._first = True
        self._sessions: set[int] = set()
        self._pumps: list[Pump] = []
        self._count = 0
        self.busy = False

    async def run(
        self, command: str, *, capture: Capture, limit_s: float, stop: "asyncio.Future[None]"
    ) -> Ended:
        """Run a command; at `limit_s` or when `stop` is done, everything is killed.

        Raises ShellError if there is no shell, OSError if the workspace cannot be written.
        """
        self.busy = True
        began = time.monotonic()
        try:
            notes = await self._ready()
            how, code, more = await self._run(command, capture, limit_s, stop)
        finally:
            self.busy = False
            capture.close()
        return Ended(how, code, time.monotonic() - began, (*notes, *more))

    async def kill(self) -> set[int]:
        """Kill the shell and all it ever started. Returns the pids that would not die."""
        left = await family.kill(self._members)
        if self._process:
            await asyncio.wait((self._process.child.ended,), timeout=_LAST_WORDS_S)
            self._process.close()
            self._process = None
        return left

    async def close(self) -> None:
        """End everything; the shell cannot be used afterwards."""
        await self.kill()
        for pump in self._pumps:
            pump.close()

    # --- one command ---

    async def _run(
        self, command: str, capture: Capture, limit_s: float, stop: "asyncio.Future[None]"
    ) -> tuple[End, int | None, tuple[str, ...]]:
        process = self._process
        assert process is not None
        nonce = secrets.token_hex(16)
        with self._files(command) as (script, fifo):
            pump = Pump(fifo, capture)
            self._keep(pump)
            if not process.bash and (wrong := await self._syntax_error(process, script)):
                capture.feed(wrong)
                return End.DONE, _SYNTAX_ERROR, ()
            process.expect(nonce)
            text = driver.call(bash=process.bash, nonce=nonce, command=script, output=fifo)
            try:
                ended: asyncio.Future[int] = process.child.ended
                if process.send(text):
                    await asyncio.wait(
                        (process.report, ended, stop),
                        timeout=limit_s, return_when=asyncio.FIRST_COMPLETED,
                    )  # fmt: skip
                return await self._conclude(process, nonce, stop)
            finally:
                pump.end_call()

    async def _syntax_error(self, process: ShellProcess, script: Path) -> bytes:
        """What is wrong with a script: POSIX lets a shell end at a syntax error in a `.` file."""
        checked = await self._children.run(
            [str(process.path), "-n", str(script)],
            environment=self._environment, folder=self._config.workspace,
            limit=_SYNTAX_LIMIT, timeout=_START_S,
        )  # fmt: skip
        return f"{checked.errors}\n".encode() if checked.code else b""

    async def _conclude(
        self, process: ShellProcess, nonce: str, stop: "asyncio.Future[None]"
    ) -> tuple[End, int | None, tuple[str, ...]]:
        if process.child.ended.done():
            process.drain()
        if process.report.done():
            return await self._ended(process, nonce, process.report.result())
        if process.child.ended.done():
            code = process.child.ended.result()
            await self.kill()
            return End.DIED, code if code >= 0 else 128 - code, (_LOST, _kept(process))
        left = await self.kill()
        notes = (_KILLED, _kept(process), *_undying(left))
        return (End.CANCELLED if stop.done() else End.TIMED_OUT), None, notes

    async def _ended(
        self, process: ShellProcess, nonce: str, report: driver.Report
    ) -> tuple[End, int | None, tuple[str, ...]]:
        await asyncio.wait((process.saved, process.child.ended), timeout=_SAVE_S,
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        if process.child.ended.done():
            process.drain()
        state = driver.parse_state(process.saved.result(), nonce) if process.saved.done() else None
        if state:
            self._state = state
            checkpoint.save(self._config.state, state)
        if not report.shell_ends:
            return End.DONE, report.exit_code, ()
        await asyncio.wait((process.child.ended,), timeout=_LAST_WORDS_S)
        if not process.child.ended.done():
            await self.kill()
        process.close()
        self._process = None
        return End.EXITED, report.exit_code, (_EXITED if state else _EXITED_UNSAVED,)

    # --- the process ---

    async def _ready(self) -> tuple[str, ...]:
        """Have a shell that listens; what the model must know if it is not the old one."""
        with contextlib.suppress(OSError):  # a full workspace must not keep commands from running
            home.arrange(self._config)
        if self._process and self._process.alive:
            return ()
        note = self._why_new()
        if self._process:
            self._process.close()
            self._process = None
        if self._state and await self._start(self._state):
            return note
        if await self._start(None):
            return (*note, _BLANK) if self._state else note
        raise ShellError("the image's shell was started and did not answer")

    def _why_new(self) -> tuple[str, ...]:
        """What to tell about a shell that is not the one of the last command, if it was not said."""
        restarted, self._first = self._first and self._state is not None, False
        if restarted:
            return (_RESTARTED,)
        return (_GONE,) if self._process else ()

    async def _start(self, state: driver.State | None) -> bool:
        found = self._find(self._environment["PATH"])
        if found is None:
            raise ShellError("the image has neither bash nor sh; the file tools still work")
        path, bash = found
        process = shellprocess.start(
            self._children, path, bash=bash, environment=self._environment,
            folder=self._config.workspace,
        )  # fmt: skip
        self._process = process
        self._sessions.add(process.child.pid)
        nonce = secrets.token_hex(16)
        process.expect(nonce)
        with self._restore_file(state, bash) as restore:
            process.send(driver.opening(bash=bash, nonce=nonce, restore=restore))
            await asyncio.wait((process.report, process.child.ended), timeout=_START_S,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        if process.report.done():
            return True
        await self.kill()
        return False

    def _members(self) -> set[int]:
        return family.members(
            family.table(family.marked_with(f"{environment.MARKER}={self._marker}".encode())),
            self._sessions,
            parent=os.getpid(),
            helpers=self._children.helpers,
            adopts_orphans=self._config.adopts_orphans,
        )

    # --- files ---

    @contextlib.contextmanager
    def _files(self, command: str) -> Iterator[tuple[Path, Path]]:
        """A command file and a FIFO for its output, new for each call and gone after it."""
        self._count += 1
        with contextlib.ExitStack() as stack:
            for folder in (self._config.scratch, Path(tempfile.gettempdir())):
                script = folder / f"command-{self._marker[:8]}-{self._count}"
                fifo = script.with_suffix(".out")
                try:
                    script.write_bytes(command.encode(errors="surrogateescape"))
                    stack.callback(script.unlink, missing_ok=True)
                    os.mkfifo(fifo, 0o600)
                    stack.callback(fifo.unlink, missing_ok=True)
                except OSError as error:  # the workspace may be full: `rm` must still work
                    failure = error
                    continue
                yield script, fifo
                return
            raise failure

    @contextlib.contextmanager
    def _restore_file(self, state: driver.State | None, bash: bool) -> Iterator[Path | None]:
        if state is None:
            yield None
            return
        text = driver.restore_script(
            state, bash=bash, workspace=self._config.workspace,
            exported={environment.MARKER: self._marker},
        )  # fmt: skip
        with self._files(text) as (script, _):
            yield script

    def _keep(self, pump: Pump) -> None:
        self._pumps = [p for p in self._pumps if p.open]
        while len(self._pumps) >= _LEFT_OVERS:
            self._pumps.pop(0).close()
        self._pumps.append(pump)


def _kept(process: ShellProcess) -> str:
    return _KEPT if process.bash else _KEPT_SH


def _undying(pids: set[int]) -> tuple[str, ...]:
    return (f"[{len(pids)} processes could not be killed]",) if pids else ()
