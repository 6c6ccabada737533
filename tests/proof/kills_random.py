"""SIGKILL at any moment, while several tasks run: of the operator, of sandboxes, of both."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from tests.proof.kills_cases import strike
from tests.proof.lane import Lane
from tests.proof.node import RunningSandbox
from tests.proof.rows import Findings, Row
from tests.proof.shapes import FINISH, Effect, Turn, marks

SHAPE = "busy"
AT_ONCE = 4
SHORTEST_LIFE_S, LONGEST_LIFE_S = 0.0, 2.5
"""How long an operator lives once it is ready."""
RENAMED = 0.04
"""Share of the kills after which the next operator has another name, and waits for the Lease."""
READY_WITHIN_S = 60.0
PATIENCE_S = 90.0
"""How long tasks may take to their end once nobody is killed any more."""


def shapes(effect: Effect) -> Mapping[str, tuple[Turn, ...]]:
    """Quick and slow tools, several in one turn, a model that takes its time now and then."""
    return {
        SHAPE: (
            {**marks(effect), "delay_s": 0.1},
            marks(effect, 3),
            marks(effect, after="sleep 0.5"),
            {**marks(effect, 2, before="sleep 0.2"), "delay_s": 0.5},
            marks(effect, 2),
            marks(effect, before="sleep 1"),
            FINISH,
        )
    }


@dataclass(frozen=True, slots=True)
class Kind:
    """Who is killed in a storm, and for how much of all its kills."""

    row: str
    victims: tuple[str, ...]
    share: float


KINDS = (
    Kind("operator killed at any moment", ("operator",), 0.5),
    Kind("sandbox server and runner killed at any moment", ("kill-server", "kill-runner"), 0.25),
    Kind(
        "operator, sandboxes and pods killed at any moment",
        ("operator", "operator", "kill-server", "kill-runner", "lose-pod"),
        0.25,
    ),
)


@dataclass(frozen=True, slots=True)
class _Killed:
    """One kill: when, and how far the owner had come of whom it was to disturb."""

    at: float
    epochs: dict[str, int]


@dataclass(slots=True)
class Storm:
    """Kills in one lane."""

    lane: Lane
    kind: Kind
    chance: random.Random
    running: list[str] = field(default_factory=list)
    killed: list[_Killed] = field(default_factory=list)
    turns: int = 0
    found: Findings = field(default_factory=Findings)

    async def run(self, kills: int) -> Row:
        """So many kills, and peace until all tasks have ended."""
        operator = self.lane.operator
        operator.more = {}
        await operator.start()
        while len(self.killed) < kills:
            await self._settle()
            await asyncio.sleep(self.chance.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S))
            await self._kill(self.chance.choice(self.kind.victims))
        await self.lane.ended(self.running, PATIENCE_S)
        await self._judge(self.running)
        await operator.kill()
        return Row(
            "L2",
            self.kind.row,
            len(self.killed),
            self.found,
            tuple(self._resumes()),
            kills=len(self.killed),
            turns=self.turns,
        )

    async def _settle(self) -> None:
        """Judge what has ended, and have enough under way again."""
        over = [name for name in self.running if self.lane.is_over(name)]
        await self._judge(over)
        self.running = [name for name in self.running if name not in over]
        self.running += await self.lane.begin(SHAPE, AT_ONCE - len(self.running))

    async def _judge(self, tasks: list[str]) -> None:
        found, turns = await self.lane.judged(tasks)
        self.found += found
        self.turns += turns
        await self.lane.delete(*tasks)

    # --- killing ---------------------------------------------------------------------------------

    async def _kill(self, victim: str) -> None:
        if victim == "operator":
            await self._kill_operator()
            return
        sandbox = self._some_sandbox()
        if sandbox is None:
            return
        self.killed.append(_Killed(time.monotonic(), {sandbox.task_uid: -1}))
        try:
            await strike(sandbox, victim)
        except ProcessLookupError:
            self.killed.pop()  # it is just being started again

    async def _kill_operator(self) -> None:
        operator = self.lane.operator
        epochs = {self.lane.uid(name): self.lane.epoch(name) for name in self._seen()}
        self.killed.append(_Killed(time.monotonic(), epochs))
        await operator.kill()
        if self.chance.random() < RENAMED:
            operator.pod = f"{operator.pod}x"
        await operator.launch()
        await operator.ready(READY_WITHIN_S)

    def _some_sandbox(self) -> RunningSandbox | None:
        """One that is ready and whose task runs; None while there is none."""
        ready = []
        for name in self._seen():
            with suppress(KeyError):
                ready.append(self.lane.sandbox(name))
        ready = [sandbox for sandbox in ready if sandbox.ready and not sandbox.lost]
        return self.chance.choice(ready) if ready else None

    def _seen(self) -> list[str]:
        return [name for name in self.running if self.lane.seen(name)]

    def _resumes(self) -> list[float]:
        """For each kill, how soon the first of the disturbed tasks went on."""
        times = []
        for kill in self.killed:
            resumed = (
                self.lane.sights.resumed(uid, kill.at, epoch) for uid, epoch in kill.epochs.items()
            )
            times.append(min((seconds for seconds in resumed if seconds), default=0.0))
        return [seconds for seconds in times if seconds]
