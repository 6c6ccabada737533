"""The persistent shell: it outlives its process, because its state is saved after each call.

One command at a time; it goes on by itself until it ends, is killed, or its hard timeout is over,
however long anybody waits for it. A command that ends the shell by itself (exit, set -e) is
reported with its code and the state it left. A shell that is lost without a word is started again
in the state before that command. Whatever is lost is said in the notes, for the model to read.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ratchet_sandbox.runner import (
    checkpoint,
    driver,
    environment,
    family,
    home,
    memory,
    notes,
    shellprocess,
    signals,
)
from ratchet_sandbox.runner.command import End, Ended, Running
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.output import Capture, Pump
from ratchet_sandbox.runner.processes import Children
from ratchet_sandbox.runner.shellprocess import ShellProcess
from ratchet_sandbox.runner.terminal import Terminal

_START_S: Final = 10.0
_SAVE_S: Final = 10.0
_LAST_WORDS_S: Final = 1.0
"""How long a shell that says it ends may take to be gone."""
_SYNTAX_ERROR: Final = 2
"""Exit code of a script that cannot be parsed, as shells have it."""
_SYNTAX_LIMIT: Final = 64 * 1024
_LEFT_OVERS: Final = 64
"""Ended calls whose background processes may still write; the oldest is cut off beyond that."""


class ShellError(Exception):
    """No shell can be started; the message says why."""


class Shell:
    """The task's shell. Start nothing before `start`; `close` ends everything it started."""

    def __init__(
        self,
        config: Config,
        children: Children,
        outer: Mapping[str, str],
        *,
        find: Callable[[str], tuple[Path, bool] | None] = shellprocess.find_shell,
        cgroup: Path = memory.CGROUP,
    ) -> None:
        """`outer`: the container's environment; `find`: from a search path to the
        shell's path, and whether it is bash; `cgroup`: where the container's own is shown."""
        self._cgroup = cgroup
        self._config = config
        self._find = find
        self._children = children
        self._marker = secrets.token_hex(16)
        self._environment = environment.shell_environment(
            outer, home=str(config.home), marker=self._marker
        )
        self._process: ShellProcess | None = None
        self._state = checkpoint.load(config.state)
        self._on_disk = self._state is not None
        self._first = True
        self._note = config.private / "running"
        self._lost = checkpoint.load_running(self._note)
        self._sessions: set[int] = set()
        self._pumps: list[Pump] = []
        self._count = 0
        self._running: Running | None = None
        self.left: Running | None = None
        """The command that was left running, until its end has been told."""

    @property
    def busy(self) -> bool:
        """Whether a command is running."""
        return self._running is not None

    @property
    def seconds_left(self) -> float:
        """How long the command that is running may still take."""
        return self._running.limit_s - self._running.seconds if self._running else 0.0

    async def start(self, command: str, *, capture: Capture, limit_s: float) -> Running:
        """Begin with a command; after `limit_s` everything that the shell has started is killed.

        Call it only while the shell is not busy. Raises ShellError if there is no shell.
        """
        news = await self._ready()
        assert self._process is not None
        assert not self.busy
        shell = self._process.child.pid
        running = Running(
            command, capture, limit_s, shell, family.children(shell), Terminal(capture),
            asyncio.get_running_loop().create_future(), news,
        )  # fmt: skip
        self._running = running
        running.task = asyncio.create_task(self._see_through(running))
        return running

    def leave(self, running: Running) -> None:
        """Nobody waits for this command now. It is remembered, in case this runner is lost."""
        self.left = running
        if running.ended is None:
            checkpoint.save_running(self._note, running.text)

    def told(self, running: Running) -> None:
        """The end of this command has been told."""
        if self.left is running:
            self.left = None

    def what_was_lost(self) -> tuple[str, ...]:
        """What an earlier runner had been left running, told once."""
        lost, self._lost = self._lost, ""
        if lost:
            checkpoint.forget_running(self._note)
        return notes.left_running(lost)

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
        if self._running and self._running.task:
            self._running.task.cancel()
        await self.kill()
        for pump in self._pumps:
            pump.close()

    # --- one command ---

    async def _see_through(self, running: Running) -> Ended:
        oom = memory.kills(self._cgroup)
        try:
            how, code, more = await self._run(running)
        finally:
            self._running = None
            running.capture.close()
            running.terminal.close()
            if self.left is running:
                checkpoint.forget_running(self._note)
        ours = how in (End.TIMED_OUT, End.CANCELLED, End.KILLED) or running.signal
        of_memory = memory.note(oom, None if ours else code, self._cgroup)
        return Ended(how, code, running.seconds, (*running.notes, *more, *of_memory))

    async def _run(self, running: Running) -> tuple[End, int | None, tuple[str, ...]]:
        process = self._process
        assert process is not None
        nonce = secrets.token_hex(16)
        with self._files(running.text) as (script, fifo):
            pump = Pump(fifo, running.capture)
            self._keep(pump)
            if not process.bash and (wrong := await self._syntax_error(process, script)):
                running.capture.feed(wrong)
                return End.DONE, _SYNTAX_ERROR, ()
            process.expect(nonce)
            text = driver.call(
                bash=process.bash, nonce=nonce, command=script,
                source=running.terminal.path, output=fifo,
            )  # fmt: skip
            try:
                ended: asyncio.Future[int] = process.child.ended
                if process.send(text):
                    await asyncio.wait(
                        (process.report, ended, running.stop),
                        timeout=running.limit_s, return_when=asyncio.FIRST_COMPLETED,
                    )  # fmt: skip
                return await self._conclude(process, nonce, running)
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
        self, process: ShellProcess, nonce: str, running: Running
    ) -> tuple[End, int | None, tuple[str, ...]]:
        if process.child.ended.done():
            process.drain()
        if process.report.done():
            return await self._ended(process, nonce, process.report.result(), running)
        if process.child.ended.done():
            code = process.child.ended.result()
            return End.DIED, _exit_code(code), (notes.LOST, *await self._killed(process))
        killed = await self._killed(process)
        how = running.stop.result() if running.stop.done() else End.TIMED_OUT
        return how, None, (notes.KILLED, *killed)

    async def _killed(self, process: ShellProcess) -> tuple[str, ...]:
        """Kill what there is, and say what that was and what the next shell will have."""
        rows = family.table()
        names = family.names(rows, self._members() - {process.child.pid})
        left = await self.kill()
        kept = notes.KEPT if process.bash else notes.KEPT_SH
        return (*notes.killed(names), kept, *notes.undying(left))

    async def _ended(
        self, process: ShellProcess, nonce: str, report: driver.Report, running: Running
    ) -> tuple[End, int | None, tuple[str, ...]]:
        await asyncio.wait((process.saved, process.child.ended), timeout=_SAVE_S,
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        if process.child.ended.done():
            process.drain()
        state = driver.parse_state(process.saved.result(), nonce) if process.saved.done() else None
        if state:
            self._state = state
            self._on_disk = checkpoint.save(self._config.state, state)
        if not report.shell_ends and not (state and state.restricted):
            return End.DONE, report.exit_code, ()
        if not report.shell_ends:
            signals.send(process.child.pid, signal.SIGKILL)
        await asyncio.wait((process.child.ended,), timeout=_LAST_WORDS_S)
        if not process.child.ended.done():
            await self.kill()
        process.close()
        self._process = None
        if not report.shell_ends:
            return End.DONE, report.exit_code, (notes.RESTRICTED,)
        return End.EXITED, _last_code(process, report), (notes.why_it_ended(state, running.signal),)

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
        if self._state and self._on_disk and not self._config.state.exists():
            self._state, note = None, (*note, notes.FORGOTTEN)
        if self._state and await self._start(self._state):
            return note
        if await self._start(None):
            return (*note, notes.BLANK) if self._state else note
        raise ShellError("the image's shell was started and did not answer")

    def _why_new(self) -> tuple[str, ...]:
        """What to tell about a shell that is not the one of the last command, if it was not said."""
        restarted, self._first = self._first and self._state is not None, False
        if restarted:
            return (notes.RESTARTED, *self.what_was_lost(), *notes.jobs(self._state))
        return (notes.GONE,) if self._process else ()

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


def _exit_code(code: int) -> int:
    """As shells tell it: 128 and the signal's number for what a signal ended."""
    return code if code >= 0 else 128 - code


def _last_code(process: ShellProcess, report: driver.Report) -> int:
    """A shell that a signal ends runs its exit trap, and reports the code of the command before."""
    ended = process.child.ended
    by_signal = ended.done() and ended.result() < 0
    return _exit_code(ended.result()) if by_signal else report.exit_code
