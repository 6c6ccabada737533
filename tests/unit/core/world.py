"""A task in a pretended world: journal, model and sandbox in memory, time that jumps.

A test says what goes wrong and when, starts an owner, and looks at what is left::

    @virtual
    async def test_...() -> None:
        world = World(calls(BASH), FINISH)
        world.on("append", AFTER, world.kill)
        await world.run_to_end()
        assert world.ran("bash") == 1
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from ratchet.core import events as e
from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.facts import CallOrder, Receipt
from ratchet.core.records import End, Outcome, Record, Result, Turn
from ratchet.core.replies import FailureKind, ModelFailure
from ratchet.core.state import State
from ratchet.core.status import Summary
from ratchet.core.tools import enabled_tools
from ratchet.failpoints import Faults, enable
from ratchet.fakes.clock import BEGIN, LoopClock, run
from ratchet.fakes.gate import OpenGate
from ratchet.fakes.journal import FakeJournals, Stage, Store, StoredTask
from ratchet.fakes.model import Answer, FakeModel, Play, calls, script
from ratchet.fakes.sandbox import FakePod, FakeSandboxes
from ratchet.ports import JournalAway, Journals, Model, RuleCheck, Sandbox, TaskRef
from ratchet.shell import failing as failpoints
from ratchet.shell.performing import Outside
from ratchet.shell.runner import Runner

BEFORE, AFTER = Stage.BEFORE, Stage.AFTER
CONFIG = Config(
    goal="Mend the sum.",
    model=ModelConfig(endpoint="default", url="http://model/v1", model="m"),
    sandbox=SandboxConfig(image="debian"),
    tools=enabled_tools((), ()),
)
TASK = TaskRef("work", "mend", "11111111-2222-3333-4444-555555555555")
BASH = ("bash", {"command": "make"})
READ = ("read_file", {"path": "sum.py"})
WRITE = ("write_file", {"path": "sum.py", "content": "1 + 1"})
CHANGE = ("search_replace", {"path": "sum.py", "content": "2"})
FINISH = ("finish", {"summary": "done"})
FINISHED = calls(FINISH)
BUSY = ModelFailure(FailureKind.WAIT, "The server is full.", 503)
BROKEN = ModelFailure(FailureKind.RETRY, "The connection broke.")


async def no_rules(
    _rules: object, _tool: str, _arguments: str, _calls: Mapping[str, int], _turn: int
) -> str | None:
    """Every call is allowed."""
    return None


Action = Callable[[], Awaitable[None] | None] | Exception


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time, for at most a pretended day."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(86_400):
                await test(*args, **kwargs)

        run(limited())

    return wrapper


@dataclass(slots=True)
class Rule:
    """Something that happens around an operation; `skip` times not yet, then `times` times."""

    operation: str
    stage: Stage
    action: Action
    skip: int
    times: int

    def strikes(self, operation: str, stage: Stage) -> bool:
        if (operation, stage) != (self.operation, self.stage):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return self.times >= 0


class Hooked:
    """A port whose methods tell the world before they begin and after they are done."""

    def __init__(self, port: object, hook: Callable[[str, Stage], Awaitable[None]]) -> None:
        self._port = port
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        async def hooked(*args: Any) -> Any:
            await self._hook(name, BEFORE)
            result = await method(*args)
            await self._hook(name, AFTER)
            return result

        return hooked


@dataclass(slots=True)
class Owner:
    """One operator process, as far as this task is concerned."""

    name: str
    runner: Runner | None = None
    work: asyncio.Task[State | None] | None = None
    frozen: float = 0.0
    """Until when, in the loop's time, this process stands still."""


@dataclass(slots=True)
class Effect:
    """A call that really began, and what the journal said at that moment."""

    key: str
    tool: str
    generation: int
    epoch: int
    journal: tuple[Record, ...]


@dataclass(slots=True)
class Seen:
    """An event as an owner folded it."""

    at: float
    owner: str
    event: e.Event
    state: State


class World:
    """One task, its surroundings, and all that was seen of it."""

    def __init__(
        self,
        *answers: Answer,
        play: Play | None = None,
        config: Config = CONFIG,
        think_s: float = 2.0,
        tool_s: float = 1.0,
        latency_s: float = 0.01,
    ) -> None:
        self.store = Store()
        self.task: StoredTask = self.store.add(TASK, config)
        self.model = FakeModel(play or script(*answers), delay_s=think_s)
        self.sandboxes = FakeSandboxes(
            tool_delay_s=tool_s, latency_s=latency_s / 2, began=self._began
        )
        self.gate = OpenGate()
        self.denies: RuleCheck = no_rules
        self.latency: Callable[[], float] = lambda: latency_s
        self.rules: list[Rule] = []
        self.hooks: list[Callable[[str, Stage], Awaitable[None]]] = []
        self.owners: list[Owner] = []
        self.faults: Callable[[Owner], Faults] | None = None
        """What goes wrong at an owner's failpoints; without it its ports have none."""
        self.effects: list[Effect] = []
        self.seen: list[Seen] = []
        self.heads: list[tuple[Record, ...]] = []
        self.summaries: list[Summary] = []
        self.tellers: list[Callable[[str, str], None]] = []
        """Told of what happens outside of the loop: name of the owner or `world`, and what."""
        self.witnesses: list[Callable[[Seen], None]] = []
        """Told of each event that an owner folds."""
        self._waiting: list[tuple[Callable[[e.Event, State], bool], asyncio.Future[State]]] = []

    # --- what goes wrong -------------------------------------------------------------------------

    def on(
        self, operation: str, stage: Stage, action: Action, *, skip: int = 0, times: int = 1
    ) -> None:
        """Do something before or after an operation of a port, or raise it there."""
        self.rules.append(Rule(operation, stage, action, skip, times))

    def api_away(self, seconds: float) -> None:
        """From now on, and so long, no write reaches the API server."""
        until = self.now + seconds
        self.tell("world", f"the API server is away for {seconds:g} s")

        def fail() -> None:
            if self.now < until:
                raise JournalAway("the API server does not answer")

        for operation in JOURNAL_OPERATIONS:
            self.on(operation, BEFORE, fail, times=10**9)

    def cancel(self) -> None:
        """Somebody sets spec.cancel."""
        self.tell("world", "spec.cancel is set")
        self.task.cancel = True
        for owner in self.owners:
            if owner.runner is not None:
                owner.runner.notify(e.CancelSeen())

    def lose_pod(self, *, claim_too: bool = True) -> None:
        """The pod of the newest generation is gone, with its volumes or with all but its claim."""
        pod = self.pod
        if pod is not None and pod.alive:
            what = "with its volumes" if claim_too or not pod.claim else "and its claim is not"
            self.tell("world", f"the pod of generation {pod.generation} is lost {what}")
            self.sandboxes.lose(TASK.uid, pod.generation, claim_too=claim_too)
        for owner in self.owners:
            if owner.runner is not None:
                owner.runner.notify(e.SandboxChanged())

    def lose_shell(self) -> None:
        """The runner in the pod is lost: nobody can say how its calls ended."""
        if self.pod is not None:
            self.tell("world", "the shell of the sandbox is lost")
            self.sandboxes.reveal_unknown(TASK.uid, self.pod.generation)

    @property
    def pod(self) -> FakePod | None:
        """The newest pod."""
        pods = self.sandboxes.pods
        return pods[max(pods)] if pods else None

    def kill(self, owner: Owner | None = None) -> None:
        """The newest owner's process, or this one, is no more."""
        owner = owner or self.owners[-1]
        if owner.work is not None and not owner.work.done():
            self.tell("world", f"{owner.name} is killed")
            owner.work.cancel()

    # --- who runs the task -----------------------------------------------------------------------

    def start(self, name: str = "") -> Owner:
        """A process claims the task and runs it."""
        owner = Owner(name or f"op-{len(self.owners) + 1}")
        self.owners.append(owner)
        with enable(self.faults(owner) if self.faults else None):
            owner.work = asyncio.create_task(self._work(owner))
        return owner

    async def run_to_end(self, *, check: bool = True) -> State:
        """Have owners run the task, a new one a second after each that is lost, until it has ended."""
        while True:
            owner = self.owners[-1] if self.owners else self.start()
            assert owner.work is not None
            await asyncio.wait([owner.work])
            state = None if owner.work.cancelled() else owner.work.result()
            if state is not None and state.removed:
                break
            if self.task.finished:
                break
            await asyncio.sleep(1)
            if owner is self.owners[-1]:
                self.start()
        if check:
            from tests.unit.core.invariants import check_all, places_are_given_back

            check_all(self)
            places_are_given_back(self.gate)
        return [o.runner.state for o in self.owners if o.runner is not None][-1]

    async def _work(self, owner: Owner) -> State | None:
        clock = LoopClock()
        hook = functools.partial(self._hook, owner)
        journals: Journals = FakeJournals(self.store, hook)
        if self.faults:
            journals = failpoints.FailingJournals(journals)
        try:
            claimed = await journals.claim(TASK, owner.name, clock.now())
        except JournalAway:
            return None
        if claimed is None:
            return None
        claim, journal = claimed
        self.tell(owner.name, f"claims the task, epoch {claim.epoch}")
        model = cast(Model, Hooked(self.model, hook))
        sandbox = cast(Sandbox, Hooked(self.sandboxes.of(TASK, claim.epoch), hook))
        outside = Outside(
            journal,
            failpoints.FailingModel(model) if self.faults else model,
            failpoints.FailingSandbox(sandbox) if self.faults else sandbox,
            clock,
            self.gate,
            lambda _tool, _arguments: None,
            self.denies,
            lambda: 0.5,
        )
        owner.runner = Runner(claim, outside, (functools.partial(self._listen, owner),))
        if self.task.cancel:
            owner.runner.notify(e.CancelSeen())
        return await owner.runner.run()

    # --- what is seen ----------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return asyncio.get_running_loop().time()

    async def until(
        self, kind: type[e.Event], when: Callable[[Any, State], bool] = lambda _e, _s: True
    ) -> State:
        """Wait until an owner has folded such an event."""
        future: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self._waiting.append((lambda ev, st: isinstance(ev, kind) and when(ev, st), future))
        return await future

    def events(self, kind: type[e.Event]) -> list[Any]:
        """All events of a kind, in order."""
        return [seen.event for seen in self.seen if isinstance(seen.event, kind)]

    def ran(self, tool: str) -> int:
        """How many calls of a tool really began."""
        return sum(effect.tool == tool for effect in self.effects)

    @property
    def turns(self) -> list[Turn]:
        return [record for record in self.task.journal if isinstance(record, Turn)]

    @property
    def end(self) -> End:
        last = self.task.journal[-1]
        assert isinstance(last, End), f"the journal ends with {last}"
        return last

    def result(self, turn: int, index: int) -> Result:
        found = self.turns[turn - 1].result(index)
        assert found is not None, f"turn {turn} has no result of call {index}"
        return found

    def outcomes(self, turn: int) -> list[Outcome]:
        """Outcomes of a turn's calls, in their order."""
        return [result.outcome for result in self.turns[turn - 1].results or ()]

    def asked(self) -> list[str]:
        """The bodies of all requests that the model got."""
        return [request.body for request in self.model.seen]

    def tell(self, who: str, what: str) -> None:
        for teller in self.tellers:
            teller(who, what)

    def _listen(self, owner: Owner, event: e.Event, state: State) -> None:
        self.seen.append(Seen(self.now, owner.name, event, state))
        for witness in self.witnesses:
            witness(self.seen[-1])
        for wanted, future in list(self._waiting):
            if wanted(event, state) and not future.done():
                future.set_result(state)
                self._waiting.remove((wanted, future))

    async def _hook(self, owner: Owner, operation: str, stage: Stage) -> None:
        """Around every operation of every port of every owner."""
        if stage is BEFORE:
            await asyncio.sleep(self.latency())
        if owner.frozen > self.now:
            await asyncio.sleep(owner.frozen - self.now)
        if stage is AFTER:
            self._observe(owner, operation)
        for hook in self.hooks:
            await hook(operation, stage)
        for rule in self.rules:
            if rule.strikes(operation, stage):
                await self._act(rule.action)
        if owner.work is not None and owner.work.cancelling():
            await asyncio.get_running_loop().create_future()  # killed: it comes no further

    async def _act(self, action: Action) -> None:
        if isinstance(action, Exception):
            raise action
        done = action()
        if inspect.isawaitable(done):
            await done

    def _observe(self, owner: Owner, operation: str) -> None:
        journal = self.task.journal
        if not self.heads or self.heads[-1] != journal:
            self.heads.append(journal)
        if operation in ("summarise", "mark_asking") and self.task.summary is not None:
            self.summaries.append(self.task.summary)
        if operation in JOURNAL_OPERATIONS:
            self.tell(owner.name, f"wrote: {operation}")

    def _began(self, pod: FakePod, order: CallOrder) -> None:
        self.effects.append(
            Effect(order.key, order.tool, pod.generation, pod.epoch, self.task.journal)
        )


JOURNAL_OPERATIONS = (
    "append", "record_results", "record_rerun", "mark_asking", "set_sandbox", "summarise",
)  # fmt: skip


def brief(event: e.Event) -> str:
    """An event in one line."""
    text = re.sub(r"body='.*?'", "", repr(event))
    return text if len(text) < 400 else text[:400] + "..."


def seconds(moment: datetime) -> float:
    """A moment as seconds since the world began."""
    return (moment - BEGIN).total_seconds()


def failing(*outcomes: Outcome) -> Callable[[FakePod, CallOrder], Receipt]:
    """A tool whose calls end so, one after another, and then well."""
    ends = itertools.chain(outcomes, itertools.repeat(Outcome.OK))
    return lambda _pod, order: Receipt(order.key, next(ends), "it ended")


def configured(**changes: Any) -> Config:
    """The usual configuration with some fields changed; `model_*` ones are those of the model."""
    model = {k[6:]: v for k, v in changes.items() if k.startswith("model_")}
    rest = {k: v for k, v in changes.items() if not k.startswith("model_")}
    return replace(CONFIG, model=replace(CONFIG.model, **model), **rest)


def later(seconds: float, act: Callable[[], None]) -> None:
    """Do something after so many seconds."""
    asyncio.get_running_loop().call_later(seconds, act)
