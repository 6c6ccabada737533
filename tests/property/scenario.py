"""A random task in a random world: everything follows from one seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

from ratchet.core import events as e
from ratchet.core.config import Completion, Config, Limits, UnknownPolicy
from ratchet.core.facts import CallOrder, Receipt
from ratchet.core.records import Outcome
from ratchet.core.replies import FailureKind, RawCall, RawReply, Usage
from ratchet.fakes.clock import run
from ratchet.fakes.journal import Stage
from ratchet.fakes.model import Answer, calls, says
from ratchet.fakes.sandbox import FakePod, plain_tool
from ratchet.ports import JournalAway, SandboxAway

from tests.unit.core.invariants import check_all, spend_is_counted
from tests.unit.core.world import BROKEN, BUSY, FINISH, World, brief, configured

QUIET_AFTER = 120.0
"""Seconds of pretended time after which nothing goes wrong any more."""
ENDS_WITHIN = 3_600.0
"""Seconds of pretended time within which every task must have ended."""

_JOURNAL = {
    "claim", "append", "record_results", "record_rerun", "mark_asking", "set_sandbox", "summarise",
}  # fmt: skip
_SANDBOX = {"prepare", "run", "digest", "patch", "interrupt"}
_TOOLS = (
    ("bash", {"command": "make"}),
    ("bash", {"command": "make test"}),
    ("read_file", {"path": "sum.py"}),
    ("write_file", {"path": "sum.py", "content": "1 + 1"}),
    ("search_replace", {"path": "sum.py", "content": "2"}),
    ("grep", {"pattern": "sum"}),
    ("todo", {"action": "write", "todos": [{"id": "a", "content": "mend"}]}),
    ("todo", {"action": "read"}),
)


class Scenario:
    """What the dice of one seed say."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.plan: list[str] = []
        self.story: list[str] = []
        self.world = World(
            *self._answers(), config=self._config(), think_s=self.dice.choice((0.05, 0.2, 2, 5))
        )
        self._surroundings()

    # --- the task --------------------------------------------------------------------------------

    def _answers(self) -> list[Answer]:
        answers = [self._answer() for _ in range(self.dice.randint(1, 5))]
        beside = [self.dice.choice(_TOOLS)] if self._chance(0.2) else []
        return [*answers, calls(*beside, FINISH), calls(FINISH)]

    def _answer(self) -> Answer:
        kind = self.dice.random()
        if kind < 0.07:
            return says("I think that I am done.")
        if kind < 0.12:
            return RawReply("", "", (RawCall("bash", "{"),), "tool_calls", Usage(5, 0, 1, 0))
        return calls(*(self.dice.choice(_TOOLS) for _ in range(self.dice.randint(1, 4))))

    def _config(self) -> Config:
        return configured(
            limits=Limits(turns=self.dice.choice((3, 50, 50))),
            active_deadline_s=self.dice.choice((None, None, None, 5, 20, 60)),
            on_unknown=self.dice.choice((*UnknownPolicy, UnknownPolicy.REPORT)),
            completion=self.dice.choice(tuple(Completion)),
        )

    # --- its surroundings ------------------------------------------------------------------------

    def _surroundings(self) -> None:
        dice, world = self.dice, self.world
        world.latency = lambda: 2.0 if dice.random() < 0.01 else dice.uniform(0.001, 0.05)
        world.sandboxes.start_delay_s = dice.choice((0.0, 0.5, 8.0))
        world.sandboxes.duration = lambda _: dice.choice((0.0, 0.1, 1.0, 3.0))
        world.sandboxes.tool = self._tool
        world.model.failures = [dice.choice((BUSY, BROKEN)) for _ in range(dice.randint(0, 2))]
        self._often = dice.choice((0.0, 0.0, 0.02, 0.1))
        world.hooks.append(self._fault)
        world.witnesses.append(
            lambda seen: self.story.append(f"{seen.at:9.3f} {seen.owner}: {brief(seen.event)}")
        )
        world.tellers.append(lambda who, what: self.story.append(f"{world.now:9.3f} {who}: {what}"))

    def _tool(self, pod: FakePod, order: CallOrder) -> Receipt:
        if self.dice.random() < 0.1:
            bad = self.dice.choice((Outcome.FAILED, Outcome.KILLED, Outcome.TIMED_OUT))
            return Receipt(order.key, bad, "it did not end well", exit_code=1)
        return plain_tool(pod, order)

    async def _fault(self, operation: str, stage: Stage) -> None:
        if self.world.now > QUIET_AFTER or self.dice.random() >= self._often:
            return
        if operation in _JOURNAL:
            self.world.tell("world", f"{operation}: no answer ({stage.name})")
            raise JournalAway("no answer")
        if operation in _SANDBOX:
            self.world.tell("world", f"{operation}: no answer ({stage.name})")
            raise SandboxAway("no answer")

    def _chance(self, share: float) -> bool:
        return self.dice.random() < share

    async def _at_some_time(self, name: str, act: Callable[[], None]) -> None:
        until = self.dice.choice((1.0, 3.0, 10.0, 60.0))
        moment = self.dice.uniform(0, until)
        self.plan.append(f"{name} at {moment:.3f}")
        await asyncio.sleep(moment)
        await self._strike(act)

    async def _at_some_operation(self, name: str, act: Callable[[], None]) -> None:
        """Between two steps of a write or a request, wherever these are."""
        number = self.dice.randint(1, 60)
        self.plan.append(f"{name} around operation {number}")
        struck = asyncio.get_running_loop().create_future()

        async def count(_operation: str, _stage: Stage) -> None:
            nonlocal number
            number -= 1
            if number == 0:
                act()
                if not struck.done():
                    struck.set_result(None)

        self.world.hooks.append(count)
        await struck
        await self._strike(lambda: None)

    async def _strike(self, act: Callable[[], None]) -> None:
        """Misfortunes do not come alone."""
        act()
        while self._chance(0.35):
            await asyncio.sleep(self.dice.choice((0.0, 0.02, 0.2, 1.5, 4.0)))
            name, another = self.dice.choice(self._kinds())
            self.plan.append(f"then {name}")
            another()

    def _stall(self) -> None:
        """The owner stands still while another one takes over, and then goes on as if nothing was."""
        owner = self.world.owners[-1]
        seconds = self.dice.choice((0.5, 3.0, 10.0, 40.0))
        owner.frozen = self.world.now + seconds
        self.world.tell(owner.name, f"stands still for {seconds:g} s")
        self.world.start()

    def _seed_file(self) -> None:
        if self.world.pod is not None:
            self.world.pod.files.setdefault("sum.py", "1 - 1")

    def _kinds(self) -> list[tuple[str, Callable[[], None]]]:
        world = self.world
        return [
            ("kill", world.kill),
            ("kill", world.kill),
            ("pod lost", world.lose_pod),
            ("pod lost", world.lose_pod),
            ("shell lost", world.lose_shell),
            ("shell lost", world.lose_shell),
            ("stall", self._stall),
            ("cancel", world.cancel),
            ("API away", lambda: world.api_away(self.dice.choice((3.0, 20.0)))),
            ("file there", self._seed_file),
        ]

    def _disasters(self) -> list[Coroutine[None, None, None]]:
        number = self.dice.choice((0, 1, 1, 2, 2, 3))
        chosen = [self.dice.choice(self._kinds()) for _ in range(number)]
        return [
            self._at_some_operation(*what) if self._chance(0.75) else self._at_some_time(*what)
            for what in chosen
        ]

    # --- the run ---------------------------------------------------------------------------------

    async def _play(self) -> None:
        world = self.world
        disasters = [asyncio.create_task(disaster) for disaster in self._disasters()]
        world.start()
        async with asyncio.timeout(ENDS_WITHIN):
            await world.run_to_end(check=False)
        for disaster in disasters:
            disaster.cancel()
        await asyncio.gather(*disasters, return_exceptions=True)
        late = [owner.work for owner in world.owners if owner.work is not None]
        async with asyncio.timeout(ENDS_WITHIN):
            await asyncio.gather(*late, return_exceptions=True)
        for owner in world.owners:
            if owner.work is not None and not owner.work.cancelled():
                owner.work.result()
        check_all(world)
        if len(world.owners) == 1:
            failures = [event.failure.kind for event in world.events(e.AskFailed)]
            spend_is_counted(world, waits=failures.count(FailureKind.WAIT))

    def run(self) -> None:
        """Play it, and check what must always be true. Raises AssertionError with the story."""
        try:
            run(self._play())
        except Exception as error:
            told = "\n".join([*self.plan, "--", *self.story])
            raise AssertionError(
                f"seed {self.seed}: {type(error).__name__}: {error}\n{told}\nreplay it with\n"
                f"  RATCHET_SEED={self.seed} python -m pytest -q tests/property/test_simulation.py"
            ) from error
