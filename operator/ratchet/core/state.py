"""What is known of a running task.

State is a fold of `loop.evolve` over the journal and the few facts that the
task's status holds. Nothing in it is read from a clock or a cache.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ratchet.core.config import Config, ModelConfig
from ratchet.core.cost import turn_cost
from ratchet.core.facts import Asking, Enforcement, NetworkVerdict, SandboxRef
from ratchet.core.policy import Look, Stop
from ratchet.core.records import Call, End, Patch, Reply, Rerun, Result, Turn
from ratchet.core.routing import FIRST, Route
from ratchet.core.tally import Tally
from ratchet.core.tools import CATALOGUE, FINISH, Home
from ratchet.core.transcript import History, Request


class SandboxPhase(StrEnum):
    """What we know of the sandbox right now."""

    UNSEEN = "Unseen"
    """It must be looked at."""
    WAITING = "Waiting"
    """It was looked at and is not ready."""
    READY = "Ready"
    GONE = "Gone"
    """Its volumes are lost; a new generation is needed."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failures in a row, and the time before which not to try again."""

    failures: int = 0
    until: datetime | None = None

    def blocks(self, now: datetime) -> bool:
        return self.until is not None and now < self.until


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that has arrived and is not recorded yet, with the digest of what it answers."""

    turn: int
    digest: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in at an endpoint, by the number of its turn and attempt."""

    turn: int
    attempt: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of the wait for a place at an endpoint: the sentence, and which place (from 1)."""

    message: str
    number: int


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The current sandbox of the task."""

    ref: SandboxRef
    phase: SandboxPhase = SandboxPhase.UNSEEN
    fenced: bool = False
    """Whether our epoch is known there, or nobody is left there to fence."""
    since: datetime | None = None
    """When the present wait began."""
    reason: str = ""
    message: str = ""
    hopeless: bool = False
    backoff: Backoff = Backoff()
    network: NetworkVerdict | None = None
    """Whether its network policy holds; None until it was tried by this owner, in this pod."""
    network_backoff: Backoff = Backoff()
    before: str = ""
    """What became of the sandbox before this one, if there was one."""

    @property
    def usable(self) -> bool:
        """Whether calls may go there: it answers, and the status names its ledger."""
        return self.phase is SandboxPhase.READY and bool(self.ref.ledger)


@dataclass(frozen=True, slots=True)
class State:
    """A task under way. `epoch` is ours."""

    task_uid: str
    config: Config
    epoch: int
    started: datetime
    deadline: datetime | None
    head: str
    """Hash of the newest complete record: what the next record must carry as `previous`."""
    sandbox: Sandbox
    turns: tuple[Turn, ...] = ()
    history: History = field(default_factory=History)
    """The conversation of all complete turns."""
    earlier: Tally = field(default_factory=Tally)
    """What all turns but the newest come to: they change no more."""
    end: End | None = None
    cancelled: bool = False
    asking: Asking | None = None
    lost_requests: int = 0
    lost_tokens: int = 0
    """By estimate, where the server did not say."""
    priority: int = 0

    request: Request | None = None
    """The next request, once all results it needs are known; a pure function of the journal and of
    the endpoint that is asked."""
    attempt: int = 1
    """Counts all tries of the request, whichever endpoint they went to."""
    route: Route = FIRST
    squeeze: int = 0
    """How much more than usual is left out of the request, since it did not fit."""
    fallback: tuple[int, History] | None = None
    """The conversation as the fallback of this index is shown it, once it was asked."""
    admitted: Admission | None = None
    queue: Place | None = None
    """The wait for a place, as long as there is one that is worth to be told."""
    answer: Answer | None = None

    known: tuple[Result, ...] = ()
    """Results of the open turn that are not recorded yet."""
    reruns: tuple[Rerun, ...] = ()
    """Re-runs that are decided and not recorded yet."""
    look: Look | None = None
    patch: Patch | None = None
    patch_tried: bool = False
    patch_failures: int = 0
    patch_message: str = ""

    stop: Stop | None = None
    broken: str = ""
    journal_backoff: Backoff = Backoff()
    lost: bool = False
    concluded: bool = False
    removed: bool = False

    @property
    def tally(self) -> Tally:
        """What all turns come to."""
        if not self.turns:
            return self.earlier
        newest = self.turns[-1]
        return self.earlier.with_turn(newest, turn_cost(self.config, newest))

    @property
    def model(self) -> ModelConfig:
        """The endpoint that is asked."""
        return self.config.endpoints[self.route.index]

    @property
    def let_in(self) -> bool:
        """Whether the next attempt has its place at the endpoint that is asked."""
        wanted = self.request
        return wanted is not None and self.admitted == Admission(
            wanted.turn, self.attempt, self.route.index
        )

    @property
    def open_turn(self) -> Turn | None:
        """The turn whose results are not recorded yet."""
        last = self.turns[-1] if self.turns else None
        return last if last is not None and not last.complete else None

    @property
    def over(self) -> bool:
        """Whether nothing is left to do here."""
        return self.lost or self.removed

    @property
    def confined(self) -> bool:
        """Whether calls may go to the sandbox as far as its network is concerned."""
        verdict = self.sandbox.network
        enforced = verdict is not None and verdict.enforcement is Enforcement.ENFORCED
        return enforced or not self.config.sandbox.require_enforced_network


def missing(state: State) -> tuple[Call, ...]:
    """Calls of the open turn without a known result, in the order they are to be run: finish last."""
    turn = state.open_turn
    if turn is None:
        return ()
    done = {result.index for result in state.known}
    rest = [call for call in turn.reply.calls if call.index not in done]
    return tuple(sorted(rest, key=lambda call: (call.tool == FINISH.name, call.index)))


def in_sandbox(call: Call) -> bool:
    """Whether a call runs in the sandbox, rather than in the operator."""
    return CATALOGUE[call.tool].home is Home.SANDBOX


def calls_before(state: State, key: str) -> dict[str, int]:
    """How often each tool was called before the call that runs under this key, run or not."""
    counts: Counter[str] = Counter()
    for turn in state.turns:
        for call in turn.reply.calls if turn.reply.verdict.runs else ():
            if turn is state.open_turn and turn.current_key(state.task_uid, call.index) == key:
                return dict(counts)
            counts[call.tool] += 1
    return dict(counts)
