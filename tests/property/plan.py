"""A scenario as data: a task, its surroundings, and what goes wrong. All of it follows from a seed.

A plan can be written as JSON, made smaller, and played again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from random import Random
from typing import Any

from ratchet.core.config import Completion, UnknownPolicy

from tests.property.network import Fate

TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "make": ("bash", {"command": "make"}),
    "test": ("bash", {"command": "make test"}),
    "read": ("read_file", {"path": "sum.py"}),
    "write": ("write_file", {"path": "sum.py", "content": "1 + 1"}),
    "change": ("search_replace", {"path": "sum.py", "content": "2"}),
    "grep": ("grep", {"pattern": "sum"}),
    "plan": ("todo", {"action": "write", "todos": [{"id": "a", "content": "mend"}]}),
    "look": ("todo", {"action": "read"}),
    "finish": ("finish", {"summary": "done"}),
}
FINISH = "finish"
SAYS, TORN = "says", "torn"
"""Instead of calls: a reply of text alone, and one whose arguments are cut off."""


class What(StrEnum):
    """What can happen to a process or a machine; to a single request: `network.Fate`."""

    KILL = "operator killed"
    KILL_CLAIMING = "operator killed in a claim"
    STALL = "operator stands still"
    SECOND = "two operators"
    POD = "pod lost"
    EVICTED = "pod evicted"
    RUNNER = "runner lost"
    SERVER = "server restarted"
    CUT_OFF = "sandbox unreachable"
    API = "API server away"
    QUEUE = "model endpoint full"
    AWAY = "model endpoint away"
    CANCEL = "cancel"
    EDIT = "task edited"
    WATCH_LATE = "watch late"
    WATCH_AGAIN = "watch repeats itself"


WEIGHTS: dict[str, float] = {
    What.KILL: 3, What.KILL_CLAIMING: 1.5, What.STALL: 2.5, What.SECOND: 1.5, What.POD: 2,
    What.EVICTED: 1, What.RUNNER: 2, What.SERVER: 2, What.CUT_OFF: 1, What.API: 1.5,
    What.QUEUE: 1.5, What.AWAY: 1,
    What.CANCEL: 2, What.EDIT: 0.7, What.WATCH_LATE: 1, What.WATCH_AGAIN: 1,
    **dict.fromkeys(map(str, Fate), 0.7),
}  # fmt: skip
KINDS = tuple(WEIGHTS)


@dataclass(frozen=True, slots=True)
class Disaster:
    """Something that goes wrong, and when: from the n-th moment of the network on, so long after
    the n-th call began to run, at a time, or so long after the disaster before it."""

    what: str
    moment: int | None = None
    call: int | None = None
    at: float | None = None
    after: float | None = None
    seconds: float = 0.0
    """How long it lasts, or how much later its consequence comes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played."""

    seed: int
    """Decides how long things take and which calls do not end well."""
    answers: tuple[tuple[str, ...], ...] = ()
    """What the model says, turn by turn: words of `TOOLS`, or one of `SAYS` and `TORN`. Then it
    says `FINISH`, again and again."""
    disasters: tuple[Disaster, ...] = ()
    model_fails: tuple[str, ...] = ()
    """How the first requests end: `busy`, `broken`, and where there is a fallback `no key` and
    `too long`."""
    turns: int = 50
    deadline_s: int | None = None
    on_unknown: str = UnknownPolicy.REPORT.value
    completion: str = Completion.EXPLICIT.value
    think_s: float = 0.2
    start_s: float = 0.5
    has_file: bool = False
    tool_s: float | None = None
    """How long each call takes; the seed says it where this does not."""
    share_bad: float = 0.1
    """Share of calls that do not end well."""
    network: str = ""
    """What sandboxes find out of their network, where the class has requireEnforcedNetwork; empty
    where it has not."""

    fallback: bool = False
    """Whether the task names a second endpoint."""
    claim: bool = False
    """Whether the workspace is on a claim, which outlives the pods."""

    def to_json(self) -> str:
        """One line, without what is not said."""
        plain = {name: value for name, value in asdict(self).items() if value != _DEFAULT.get(name)}
        plain["disasters"] = [
            {name: value for name, value in asdict(d).items() if value != _NOTHING.get(name)}
            for d in self.disasters
        ]
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote. Raises ValueError or TypeError for anything else."""
        raw = json.loads(text)
        raw["disasters"] = tuple(Disaster(**d) for d in raw.get("disasters", ()))
        raw["answers"] = tuple(tuple(answer) for answer in raw.get("answers", ()))
        raw["model_fails"] = tuple(raw.get("model_fails", ()))
        return cls(**raw)


_DEFAULT = asdict(Plan(seed=-1))
_NOTHING = asdict(Disaster(""))


def plan_of(seed: int) -> Plan:
    """The plan that the dice of a seed say."""
    dice = Random(seed)
    fallback = dice.random() < 0.4
    fails = ("busy", "broken", "no key", "too long") if fallback else ("busy", "broken")
    return Plan(
        seed=seed,
        answers=_answers(dice),
        model_fails=tuple(dice.choice(fails) for _ in range(dice.choice((0, 0, 1, 2)))),
        turns=dice.choice((3, 50, 50)),
        deadline_s=dice.choice((None, None, None, 5, 20, 60)),
        on_unknown=dice.choice((*UnknownPolicy, UnknownPolicy.REPORT)).value,
        completion=dice.choice(tuple(Completion)).value,
        think_s=dice.choice((0.05, 0.2, 2.0, 5.0)),
        start_s=dice.choice((0.0, 0.5, 8.0)),
        has_file=dice.random() < 0.5,
        disasters=(*_disasters(dice), *_noise(dice)),
        fallback=fallback,
        network=dice.choice((*[""] * 6, "Enforced", "Enforced", "Enforced", "Open")),
    )


def _answers(dice: Random) -> tuple[tuple[str, ...], ...]:
    answers = [_answer(dice) for _ in range(dice.randint(1, 5))]
    beside = [(_tool(dice), FINISH)] if dice.random() < 0.2 else []
    return (*answers, *beside)


def _answer(dice: Random) -> tuple[str, ...]:
    kind = dice.random()
    if kind < 0.12:
        return (SAYS,) if kind < 0.07 else (TORN,)
    return tuple(_tool(dice) for _ in range(dice.randint(1, 4)))


def _tool(dice: Random) -> str:
    return dice.choice(tuple(name for name in TOOLS if name != FINISH))


def _disasters(dice: Random) -> list[Disaster]:
    """Some misfortunes, none of which comes alone."""
    found: list[Disaster] = []
    for _ in range(dice.choice((0, 1, 1, 2, 2, 3))):
        found.append(_disaster(dice, **_when(dice)))
        while dice.random() < 0.4:
            after = dice.choice((0.0, 0.02, 0.2, 1.5, 4.0))
            found.append(_disaster(dice, tuple(What), after=after))
    return found


def _when(dice: Random) -> dict[str, Any]:
    kind = dice.random()
    if kind < 0.5:
        return {"moment": dice.randint(1, dice.choice((40, 150, 400)))}
    if kind < 0.8:
        return {"call": dice.choice((1, 1, 2, 3, 5)), "after": dice.choice((0.0, 0.02, 0.4, 1.2))}
    return {"at": round(dice.uniform(0, dice.choice((1, 3, 10, 60))), 3)}


def _disaster(dice: Random, kinds: Sequence[str] = KINDS, **when: Any) -> Disaster:
    (what,) = dice.choices(kinds, [WEIGHTS[kind] for kind in kinds])
    instant = what in (What.KILL, What.KILL_CLAIMING, What.RUNNER, What.SERVER, *Fate)
    lengths = (0.0, 0.5, 3.0, 10.0, 40.0) if instant else (0.5, 3.0, 10.0, 40.0)
    return Disaster(str(what), seconds=dice.choice(lengths), **when)


def _noise(dice: Random) -> list[Disaster]:
    """Requests that do not come through, here and there, in some worlds."""
    number = dice.choice((0, 0, 0, 2, 8))
    fates, lengths = tuple(Fate), (0.0, 0.5, 3.0, 10.0)
    return [
        Disaster(
            dice.choice(fates).value,
            moment=dice.randint(1, 400),
            seconds=dice.choice(lengths),
        )
        for _ in range(number)
    ]
