"""Tasks played on a real API server: the shipped journal and runner, model and sandbox in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ratchet.core import events as e
from ratchet.core.facts import CallOrder
from ratchet.core.state import State
from ratchet.edges.claim import KubeJournals
from ratchet.edges.schemas import check_arguments
from ratchet.fakes.gate import OpenGate
from ratchet.fakes.model import Answer, FakeModel, script
from ratchet.fakes.sandbox import FakePod, FakeSandboxes
from ratchet.ports import RuleCheck, TaskRef
from ratchet.shell.clock import SystemClock
from ratchet.shell.performing import Outside
from ratchet.shell.runner import Runner

from tests.contract.journal_homes import ClusterHome
from tests.unit.core.world import no_rules

BASH = ("bash", {"command": "make"})
READ = ("read_file", {"path": "sum.py"})
WRITE = ("write_file", {"path": "sum.py", "content": "print(1 + 1)\n"})
FINISH = ("finish", {"summary": "The sum is mended.", "result": {"tests": 3}})


@dataclass(slots=True)
class Play:
    """One task and its surroundings. `began` is told of each call that begins to run."""

    home: ClusterHome
    task: TaskRef
    model: FakeModel
    sandboxes: FakeSandboxes
    runner: Runner | None = None
    owners: int = 0
    began: Callable[[CallOrder], None] = lambda _: None
    rules: RuleCheck = no_rules
    work: set[asyncio.Task[Any]] = field(default_factory=set)

    @classmethod
    async def of(
        cls, home: ClusterHome, *answers: Answer, tool_s: float = 0.0, **spec: Any
    ) -> Play:
        """A task whose model gives these answers, and whose calls take so long."""
        task = await home.create("mend", **{"goal": "Mend the sum.", **spec})
        play = cls(home, task, FakeModel(script(*answers)), FakeSandboxes(tool_delay_s=tool_s))
        play.sandboxes.began = play._began
        return play

    async def run(self) -> State | None:
        """Have one more owner run the task to its end; None if it gets no claim."""
        self.owners += 1
        clock = SystemClock()
        journals = KubeJournals(self.home.api)
        claimed = await journals.claim(self.task, f"operator-{self.owners}", clock.now())
        if claimed is None:
            return None
        claim, journal = claimed
        sandbox = self.sandboxes.of(self.task, claim.epoch)
        outside = Outside(
            journal,
            self.model,
            sandbox,
            clock,
            OpenGate(clock),
            check_arguments,
            self.rules,
            lambda: 0.5,
        )
        self.runner = Runner(claim, outside)
        return await self.runner.run()

    async def run_until(self, call: int) -> None:
        """Have one more owner run it, and kill that when the n-th call (from 1) of all begins."""
        begun = asyncio.Event()
        owner = asyncio.create_task(self.run())

        def count(_: CallOrder) -> None:
            if len(self.sandboxes.effects) == call:
                begun.set()

        self.began = count
        try:
            async with asyncio.timeout(30):
                await begun.wait()
        finally:
            owner.cancel()
            await asyncio.gather(owner, return_exceptions=True)
        self.began = lambda _: None

    async def cancel(self) -> None:
        """Somebody sets spec.cancel, and the operator's watch tells."""
        await self.home.cancel(self.task)
        assert self.runner is not None
        self.runner.notify(e.CancelSeen())

    def lose_shell(self) -> None:
        """The runner in the pod is lost: nobody can say how its calls ended."""
        self.sandboxes.reveal_unknown(self.task.uid, 1)

    def do(self, coroutine: Any) -> None:
        """Start something beside the run."""
        self.work.add(asyncio.create_task(coroutine))

    def _began(self, _: FakePod, order: CallOrder) -> None:
        self.began(order)
