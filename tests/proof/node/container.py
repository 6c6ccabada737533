"""One process that plays a container: started, watched, and started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.proof.node.status import Ended, Seen

FAILPOINT = "RATCHET_SANDBOX_FAILPOINT"
STRUCK = "failpoint "
"""How a line of a log begins that a failpoint wrote when it struck."""
SHORT_S = 1.0
"""A process that ends by itself within so long is not started again at once."""
BACKOFF_S = 0.5


@dataclass(frozen=True, slots=True)
class Program:
    """What is started. `user` None: as who runs the tests."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    user: int | None = None


class Container:
    """A container of a pod. `failpoint` is for its next start and is used up by that."""

    def __init__(
        self, name: str, image: str, program: Program, changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.program = program
        self.failpoint = ""
        self.restarts = 0
        self.ready = False
        self._image = image
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._began: datetime | None = None
        self._last: Ended | None = None
        self._id = ""
        self._new = asyncio.Event()

    @property
    def pid(self) -> int:
        """The running process. Raises ProcessLookupError while there is none."""
        if self._process is None or self._process.returncode is not None:
            raise ProcessLookupError(f"container {self.name} does not run at the moment")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> int:
        """Send a signal to the process, not to what it has started; its pid."""
        pid = self.pid
        os.kill(pid, number)
        return pid

    def seen(self) -> Seen:
        """What a kubelet would report."""
        return Seen(
            name=self.name,
            image=self._image,
            id=self._id,
            began=self._began,
            ready=self.ready,
            restarts=self.restarts,
            last=self._last,
        )

    async def keep(self, tidy: Callable[[], None], *, ready_at_once: bool) -> None:
        """Run, and start again whenever it ends, until cancelled.

        `tidy` ends what the process has left behind: in a pod, that dies with its first process.
        """
        while True:
            process = await self._start(ready_at_once)
            code = await process.wait()
            tidy()
            short = self._note_end(code)
            if short and code > 0:
                await asyncio.sleep(BACKOFF_S)

    async def _start(self, ready_at_once: bool) -> asyncio.subprocess.Process:
        program, failpoint = self.program, self.failpoint
        self.failpoint = ""
        extra = {FAILPOINT: failpoint} if failpoint else {}
        who = {}
        if program.user is not None:
            who = {"user": program.user, "group": program.user, "extra_groups": []}
        with program.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *program.argv,
                env={**program.environment, **extra},
                cwd=program.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **who,  # type: ignore[arg-type]
            )
        self._began, self._id = datetime.now(UTC), f"processes://{uuid.uuid4().hex}"
        self.ready = ready_at_once
        self._changed()
        return self._process

    def _note_end(self, code: int) -> bool:
        """Remember how it ended; whether it ran for a short time only."""
        now = datetime.now(UTC)
        began = self._began or now
        self._last = Ended(128 - code if code < 0 else code, began, now, self._id)
        self._began, self.ready = None, False
        self.restarts += 1
        self._changed()
        return (now - began).total_seconds() < SHORT_S

    async def end(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s`; returns when the process is gone."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            if grace_s > 0:
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(grace_s):
                    await process.wait()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def struck(self) -> list[str]:
        """Each failpoint that struck in this container, as ``<point> <fault>``."""
        if not self.program.log.exists():
            return []
        lines = self.program.log.read_text(errors="replace").splitlines()
        return [line[len(STRUCK) :] for line in lines if line.startswith(STRUCK)]
