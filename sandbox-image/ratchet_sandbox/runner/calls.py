"""The runner's calls: each key runs at most once, one after another, and its result is kept
until the server has it on disk. Nothing here knows about connections.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ratchet_sandbox import protocol
from ratchet_sandbox.failpoints import Point, reach
from ratchet_sandbox.protocol import Outcome, Result, Run, Started
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.guides import Guides
from ratchet_sandbox.runner.processes import Children
from ratchet_sandbox.runner.result import SOFT_TIMEOUT_S, Context, ToolResult, failed
from ratchet_sandbox.runner.shell import Shell
from ratchet_sandbox.runner.tools import TOOLS, Tool

log = logging.getLogger(__name__)

_CUT: Final = "\n[... {cut} bytes left out ...]\n"
Send = Callable[[protocol.FromRunner], None]


@dataclass(slots=True)
class _Open:
    """A call that has not ended."""

    run: Run
    stop: "asyncio.Future[None]"
    task: "asyncio.Task[None] | None" = None


class Calls:
    """Takes `Run`, `Cancel`, `Ack` and `Resend`; says `Started` and `Result` through `send`."""

    def __init__(self, config: Config, children: Children, shell: Shell, send: Send) -> None:
        self._config = config
        self._children = children
        self._shell = shell
        self._send = send
        self._open: dict[str, _Open] = {}
        self._finished: dict[str, Result] = {}
        self._seen: set[str] = set()
        self._turn = asyncio.Lock()
        self._guides = Guides()

    @property
    def running(self) -> tuple[str, ...]:
        """Keys that were taken and have not ended."""
        return tuple(self._open)

    @property
    def finished(self) -> tuple[str, ...]:
        """Keys whose results the server has not acknowledged."""
        return tuple(self._finished)

    def run(self, run: Run) -> None:
        """Begin with a call, unless this key was ever begun before: then say what is known."""
        reach(Point.CALL_RECEIVED)
        if run.key in self._seen:
            log.warning("call %s was handed over twice; it is not run again", run.key)
            self.resend(run.key)
            return
        self._seen.add(run.key)
        call = _Open(run, asyncio.get_running_loop().create_future())
        self._open[run.key] = call
        call.task = asyncio.create_task(self._perform(call))

    def cancel(self, key: str) -> None:
        """Have a call stopped; its result says Killed if that changed anything."""
        call = self._open.get(key)
        if call and not call.stop.done():
            call.stop.set_result(None)

    def ack(self, key: str) -> None:
        """The result is on the server's disk."""
        self._finished.pop(key, None)

    def resend(self, key: str) -> None:
        """Say a kept result again."""
        if key in self._finished:
            self._send(self._finished[key])

    def close(self) -> None:
        """Drop what is still open; nobody will hear of it."""
        for call in self._open.values():
            if call.task:
                call.task.cancel()

    async def _perform(self, call: _Open) -> None:
        run = call.run
        busy = run.tool == "bash" and self._shell.busy  # answered at once, not queued
        began = time.monotonic()
        if busy:
            result = await self._work(call)
        else:
            async with self._turn:
                began = time.monotonic()
                result = await self._work(call)
        reach(Point.EFFECT_DONE)
        content, cut = protocol.clip(result.content, protocol.CONTENT_LIMIT, _CUT)
        meta = replace(
            result.meta,
            truncated=result.meta.truncated or cut,
            duration_ms=int((time.monotonic() - began) * 1000),
        )
        self._finished[run.key] = Result(run.key, result.outcome, content, meta)
        del self._open[run.key]
        reach(Point.RESULT_KEPT)
        self._send(self._finished[run.key])
        reach(Point.RESULT_SENT)

    async def _work(self, call: _Open) -> ToolResult:
        run = call.run
        if call.stop.done():
            return ToolResult(Outcome.KILLED, "[cancelled before it began; nothing was run]")
        self._send(Started(run.key))
        tool = TOOLS.get(run.tool)
        if tool is None:
            known = ", ".join(sorted(TOOLS))
            return failed(f"there is no tool {run.tool!r} in this sandbox; there are {known}")
        return await self._guarded(tool, call)

    async def _guarded(self, tool: Tool, call: _Open) -> ToolResult:
        run = call.run
        limit_s = run.hard_timeout_seconds or self._config.hard_timeout_s
        context = Context(
            config=self._config,
            children=self._children,
            shell=self._shell,
            key=run.key,
            hard_timeout_s=min(limit_s, self._config.hard_timeout_s),
            stop=call.stop,
            guides=self._guides,
            soft_timeout_s=run.soft_timeout_seconds or SOFT_TIMEOUT_S,
        )
        try:
            return await tool(context, run.arguments)
        except Exception as error:  # a fault of ours must end this call, not the runner and task
            log.exception("call %s: the tool %s failed inside", run.key, run.tool)
            return failed(f"the tool itself failed ({type(error).__name__}: {error})")
