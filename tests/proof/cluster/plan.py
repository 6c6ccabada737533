"""Which faults are made, when, and to whom: all of it decided by the seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from ratchet.core.config import UnknownPolicy

from tests.proof.shapes import FINISH, Effect, Turn, bash

LAST_TURN_HIT = 3
"""Faults are made in one of the first turns, so that there is something left to go on with."""


class Moment(StrEnum):
    """What goes on in the task when the fault is made."""

    CALL = "in a call"
    ASK = "in a request"
    BETWEEN = "between"
    """The model has answered; the reply is being recorded and its call begins."""


class Loses(Enum):
    """What a fault may take away from a task for good, and so what may be unknown after it."""

    NOTHING = "nothing"
    OPERATOR = "operator"
    """The process that runs the task; another one has to take it on."""
    SHELL = "shell"
    """What runs in the sandbox now; its workspace and ledger stay."""
    POD = "pod"
    """The sandbox with its workspace and its ledger."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    name: str
    """One word, for the command line and for names of tasks."""
    title: str
    """As the table shows it."""
    loses: Loses
    alone: bool = True
    """Whether it disturbs more than its own tasks, so that nothing else may run beside it."""
    tasks: int = 2
    """Tasks that run when it is made, each with another policy for unknown outcomes."""
    turns: int = 5
    call_s: float = 2.0
    """How long each call takes."""
    only_in_calls: bool = False
    claim: bool = False
    """Whether the workspace is on a claim, and not on the node's disk."""


def _of_a_sandbox(name: str, title: str, loses: Loses) -> Kind:
    return Kind(name, title, loses, alone=False, tasks=1)


def _on_a_claim(name: str, title: str) -> Kind:
    """Workspace and ledger outlive the pod; only what runs in it is lost."""
    return Kind(name, title, Loses.SHELL, alone=False, tasks=1, claim=True)


OOM = Kind(
    "shell-memory", "shell out of memory", Loses.SHELL, alone=False, tasks=1, only_in_calls=True
)
KUBELET_AWAY_S, OPERATOR_AWAY_S = 60.0, 20.0
KINDS = (
    Kind("operator-deleted", "operator pod deleted", Loses.OPERATOR),
    Kind("operator-forced", "operator pod deleted by force", Loses.OPERATOR),
    Kind("operator-killed", "operator process killed", Loses.OPERATOR),
    _of_a_sandbox("pod-deleted", "sandbox pod deleted", Loses.POD),
    _of_a_sandbox("pod-evicted", "sandbox pod evicted", Loses.POD),
    _on_a_claim("claim-pod-deleted", "sandbox pod on a claim deleted"),
    _on_a_claim("claim-pod-evicted", "sandbox pod on a claim evicted"),
    Kind("pods-deleted", "sandbox pods of 3 tasks deleted", Loses.POD, alone=False, tasks=3),
    _of_a_sandbox("shell-killed", "shell container killed", Loses.SHELL),
    OOM,
    _of_a_sandbox("server-killed", "sandbox server killed", Loses.NOTHING),
    _of_a_sandbox("both-killed", "sandbox server and shell killed", Loses.SHELL),
    _of_a_sandbox("secret-deleted", "secret of the sandbox deleted", Loses.NOTHING),
    Kind(
        "kubelet-away",
        f"kubelet away for {KUBELET_AWAY_S:g} s",
        Loses.NOTHING,
        turns=14,
        call_s=4.0,
    ),
    Kind("kubelet-restarted", "kubelet restarted", Loses.NOTHING),
    Kind("containerd-restarted", "containerd restarted", Loses.NOTHING),
    Kind("apiserver-restarted", "API server restarted", Loses.NOTHING),
    Kind("apiserver-killed", "API server killed", Loses.NOTHING),
    Kind("etcd-restarted", "etcd restarted", Loses.NOTHING),
    Kind("etcd-killed", "etcd killed", Loses.NOTHING),
    # Long tasks: the kubelet takes its time, and evicts one pod after the other.
    Kind("memory-pressure", "memory pressure on the node", Loses.POD, turns=14),
    # The old operator works until the new one is ready: the tasks must last longer than that takes.
    Kind("chart-upgraded", "helm upgrade of the operator", Loses.OPERATOR, turns=12),
    Kind("chart-reinstalled", "chart uninstalled and installed again", Loses.OPERATOR),
    Kind(
        "operator-away", f"operator scaled to 0 for {OPERATOR_AWAY_S:g} s", Loses.OPERATOR, turns=8
    ),
)
POLICIES = (UnknownPolicy.REPORT, UnknownPolicy.RETRY, UnknownPolicy.FAIL)
ASK_S = 0.8
"""How long the model takes for each answer."""
BETWEEN_S = 0.2
"""What counts as just after an answer."""
WORK = "echo turn {turn} >> work.txt"
"""What each call does in the workspace, beside its mark in the outside ledger."""
HOG = "tail /dev/zero"
"""A command that wants all memory: it keeps the last line of what is one line without end."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault: what, when, and what the tasks say about unknown outcomes."""

    number: int
    kind: Kind
    turn: int
    moment: Moment
    share: float
    """How far into that moment, 0 to 1."""
    policies: tuple[UnknownPolicy, ...]
    choice: float
    """For whatever else the fault leaves open, 0 to 1."""

    @property
    def name(self) -> str:
        """Of its shape, and the beginning of its tasks' names."""
        return f"{self.kind.name}-{self.number}"

    @property
    def wait_s(self) -> float:
        """Seconds from the beginning of the moment to the fault."""
        lasts = {Moment.CALL: self.kind.call_s, Moment.ASK: ASK_S, Moment.BETWEEN: BETWEEN_S}
        return 0.7 * self.share * lasts[self.moment]

    def __str__(self) -> str:
        policies = "/".join(policy.value for policy in self.policies)
        return f"{self.kind.title}, turn {self.turn}, {self.moment.value}, {policies}"


def trials(faults: int, seed: int, only: str = "") -> tuple[Trial, ...]:
    """So many faults. Each kind comes up once before any comes up a second time.

    `only`: kinds whose name contains this.
    """
    dice = random.Random(seed)
    kinds = [kind for kind in KINDS if only in kind.name]
    if not kinds:
        raise ValueError(f"no fault is named {only!r}: {', '.join(kind.name for kind in KINDS)}")
    drawn: list[Kind] = []
    while len(drawn) < faults:
        drawn += dice.sample(kinds, len(kinds))
    return tuple(_trial(number, kind, dice) for number, kind in enumerate(drawn[:faults], 1))


def _trial(number: int, kind: Kind, dice: random.Random) -> Trial:
    weights = (2, 1, 1)  # a call is where an outcome can become unknown
    moment = dice.choices(tuple(Moment), weights)[0]
    first = dice.randrange(len(POLICIES))
    policies = tuple(POLICIES[(first + task) % len(POLICIES)] for task in range(kind.tasks))
    # In turn 1 there may be no sandbox yet to take away.
    earliest = 2 if kind.loses in (Loses.SHELL, Loses.POD) or not kind.alone else 1
    return Trial(
        number=number,
        kind=kind,
        turn=dice.randint(earliest, LAST_TURN_HIT),
        moment=Moment.CALL if kind.only_in_calls else moment,
        share=dice.random(),
        policies=policies,
        choice=dice.random(),
    )


def shapes(plan: Sequence[Trial], effect: Effect) -> Mapping[str, tuple[Turn, ...]]:
    """What the tasks of each trial do, by the trial's name."""
    return {trial.name: _shape(trial, effect) for trial in plan}


def _shape(trial: Trial, effect: Effect) -> tuple[Turn, ...]:
    mark, kind = effect("{key}/{turn}/0"), trial.kind
    quiet = bash(f"{WORK} && {mark} && sleep {kind.call_s:g}", delay_s=ASK_S)
    end = {**FINISH, "delay_s": ASK_S}
    if kind is not OOM:
        return ({**quiet, "repeat": kind.turns}, end)
    greedy = bash(f"{mark} && {HOG}", delay_s=ASK_S)
    before, after = trial.turn - 1, kind.turns - trial.turn
    return ({**quiet, "repeat": before}, greedy, {**quiet, "repeat": after}, end)
