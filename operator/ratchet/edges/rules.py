"""Rules about tool calls (`policy.rules`): expressions of CEL, and whether they let a call pass.

The first rule whose expression is true of a call decides: Allow or Deny. A call that none is true
of is allowed. A rule that cannot be evaluated denies: nothing passes because of a mistake.

An expression sees `tool` (the tool's name), `args` (its arguments), `calls` (how often the task
called each tool before this call, 0 for those it never called, and all of them as `total`) and `turn`.

CEL ends always, and yet not soon: over arguments of 64 KiB one comprehension in another takes
minutes and gigabytes. The library has no bound on that and holds Python's lock while it works. So
rules are evaluated in a process of their own (`edges/rule_child.py`), which loads CEL so that the
operator need not, and which the first rule starts. What bounds it: at most 32 rules of at most 1,024
characters; 0.5 s of processor time for all rules of one call, by a timer of the kernel that ends the
process; 128 MiB of memory, by its own limit; 10 s altogether, by the clock of the operator. Measured on
a slow core: 0.5 ms a call for an ordinary rule, nearly all of it the way to the process and back; 13 ms
for one that looks at each of 32,000 numbers; 0.4 s to start the process; its memory 42 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ratchet.core.config import Rule, RuleAction
from ratchet.core.tools import CATALOGUE
from ratchet.ports import PortError

MAX_RULES = 32
MAX_EXPRESSION = 1024
"""Characters."""
CPU_S: Final = 0.5
"""Processor time for all rules about one call."""
CHECK_CPU_S: Final = 4.0
"""The same for looking at the rules of a task once, before it begins."""
WALL_S: Final = 10.0

_CHILD = Path(__file__).with_name("rule_child.py")
_ANSWER_BYTES = 2**20
_NO_MESSAGE = "the rules of this task do not allow this call"


@dataclass(frozen=True, slots=True)
class _Silence:
    """No answer, and why, as the end of a sentence. `theirs`: it lies in the rules."""

    why: str
    again: bool = False
    theirs: bool = False


class RuleProcess:
    """Looks at rules and evaluates them. One object for all tasks; close it.

    `decide` is a ports.RuleCheck.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._asking: set[asyncio.Task[dict[str, Any] | _Silence]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the process. What is asked from now on is denied."""
        self._closed = True
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._end()

    @property
    def pid(self) -> int | None:
        """Of the process that evaluates; None while there is none."""
        return self._process.pid if self._process is not None else None

    async def decide(
        self,
        rules: tuple[Rule, ...],
        tool: str,
        arguments: str,
        calls: Mapping[str, int],
        turn: int,
    ) -> str | None:
        """Why a call is denied, as a sentence for the model; None if it is allowed."""
        if not rules:
            return None
        if _too_much(rules):
            return f"Denied: {_too_much(rules)}"
        counts = {**dict.fromkeys(CATALOGUE, 0), **calls, "total": sum(calls.values())}
        variables = {"tool": tool, "args": arguments, "calls": counts, "turn": turn}
        said = await self._ask([rule.when for rule in rules], variables, CPU_S)
        if isinstance(said, _Silence):
            return f"Denied: the rules of this task {said.why}."
        for index, problem in said["problems"].items():
            name = rules[int(index)].name
            return f"Denied by rule {name}, which cannot be evaluated for this call: {problem}."
        if said["hit"] is None or rules[said["hit"]].action is RuleAction.ALLOW:
            return None
        rule = rules[said["hit"]]
        return f"Denied by rule {rule.name}: {rule.message or _NO_MESSAGE}"

    async def problems(self, rules: Sequence[Rule]) -> tuple[str, ...]:
        """What is wrong with rules whatever the call, a sentence each; empty if they can be used.

        Raises PortError if they could not be looked at now.
        """
        if not rules:
            return ()
        if too_much := _too_much(rules):
            return (too_much,)
        said = await self._ask([rule.when for rule in rules], None, CHECK_CPU_S)
        if isinstance(said, _Silence):
            if not said.theirs:
                raise PortError(f"The rules {said.why}.")
            return (f"The rules {said.why}.",)
        return tuple(
            f"Rule {rules[int(index)].name} is no expression that can be used: {problem}."
            for index, problem in said["problems"].items()
        )

    async def _ask(
        self, texts: list[str], variables: Mapping[str, Any] | None, cpu_s: float
    ) -> dict[str, Any] | _Silence:
        if self._closed:
            return _Silence("cannot be evaluated: the operator ends")
        request = {"cpu_s": cpu_s, "rules": texts, "variables": variables}
        # A task of its own: who is cancelled leaves no half exchange behind for the next one.
        task = asyncio.create_task(self._exchange(json.dumps(request).encode() + b"\n"))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return await asyncio.shield(task)

    async def _exchange(self, line: bytes) -> dict[str, Any] | _Silence:
        async with self._lock:
            said = await self._try(line)
            if isinstance(said, _Silence) and said.again:
                # The kernel may have ended an idle process for its memory: that is nobody's rule.
                said = await self._try(line)
            return said

    async def _try(self, line: bytes) -> dict[str, Any] | _Silence:
        try:
            async with asyncio.timeout(WALL_S):
                process = await self._started()
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(line)
                await process.stdin.drain()
                answer = await process.stdout.readline()
                if answer:
                    said: dict[str, Any] = json.loads(answer)
                    return said
        except TimeoutError:
            await self._end()
            return _Silence(f"were not evaluated within {WALL_S:g} s")
        except asyncio.CancelledError:
            await self._end()
            raise
        except (BrokenPipeError, ConnectionResetError, ValueError):
            # It ended while it read, or (half a line) while it wrote.
            pass
        except OSError as error:
            return _Silence(f"cannot be evaluated: no process can be started ({error})")
        return _ended(await self._end(grace_s=WALL_S))

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            await self._end()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-B",
                str(_CHILD),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_ANSWER_BYTES,
                # It needs nothing, and a mistake in it shall find no credentials.
                env={},
            )
        return self._process

    async def _end(self, grace_s: float = 0.0) -> int | None:
        """End the process if there is one, and tell how it ended. One that ends by itself has `grace_s`."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(process.wait(), grace_s)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await process.wait()


def _ended(code: int | None) -> _Silence:
    if code == -signal.SIGPROF:
        return _Silence(
            "use more processor time than they may: make them simpler, or the arguments smaller",
            theirs=True,
        )
    return _Silence(f"cannot be evaluated: their process ended ({code})", again=True)


def _too_much(rules: Sequence[Rule]) -> str | None:
    if len(rules) > MAX_RULES:
        return f"Too many rules ({len(rules)}): at most {MAX_RULES} are allowed."
    for rule in rules:
        if len(rule.when) > MAX_EXPRESSION:
            return (
                f"The expression of rule {rule.name} is too long ({len(rule.when)} characters): at "
                f"most {MAX_EXPRESSION} are allowed."
            )
    return None
