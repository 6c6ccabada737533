"""Play a plan in a pretended cluster, and check what must always be true."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.keys import call_key
from ratchet.core.records import End, Outcome, Turn
from ratchet.core.replies import FailureKind, ModelFailure, RawCall, RawReply, Usage
from ratchet.core.tools import CATALOGUE, Home
from ratchet.fakes.clock import run
from ratchet.fakes.model import Answer, FakeModel, calls, says, script
from ratchet_sandbox import protocol

from tests.proof.judging import Evidence, judge
from tests.proof.rows import Findings
from tests.property.cluster import AFTER_A_TAKEOVER, AFTER_THE_END, Cluster, Setting
from tests.property.disasters import Disasters
from tests.property.plan import FINISH, SAYS, TOOLS, TORN, Plan
from tests.property.pods import Tools
from tests.unit.core.invariants import (
    Broken,
    check_all,
    no_request_is_free,
    places_are_given_back,
    spend_is_counted,
)
from tests.unit.core.world import BROKEN, BUSY

ENDS_WITHIN = 3_600.0
"""Seconds of pretended time within which every task must have ended."""
SETTLES_WITHIN = 600.0
"""Seconds after its end within which nothing of it is left."""
DEADLINE, GENERATION = "a deadline passed", "a sandbox was made anew"
RERUN, UNKNOWN = "a call was run again", "an outcome was unknown"
NOT_CONFINED = "a network policy did not hold"
FALLBACK, QUEUED = "a fallback answered", "a request waited for its place"
BY_THE_WAY = (
    AFTER_A_TAKEOVER, AFTER_THE_END, DEADLINE, GENERATION, RERUN, UNKNOWN, NOT_CONFINED, FALLBACK,
    QUEUED,
)  # fmt: skip
RUN = "PYTHONPATH=operator:sandbox-image:inference/fake .venv/bin/python -m"
MARKED = frozenset(name for name, tool in CATALOGUE.items() if tool.home is Home.SANDBOX)


FAILURES = {
    "busy": BUSY,
    "broken": BROKEN,
    "no key": ModelFailure(FailureKind.CONFIGURATION, "The key is refused.", 401),
    "too long": ModelFailure(FailureKind.CONTEXT, "It does not fit.", 400),
}


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a plan."""

    plan: Plan
    findings: Findings
    struck: tuple[str, ...] = ()
    """The disasters that really changed something, in their order."""
    noted: tuple[str, ...] = ()
    """What happened by the way: `BY_THE_WAY`."""
    turns: int = 0
    unconfined: tuple[str, ...] = ()
    """Calls that ran although it was required, and not known, that the network policy holds."""
    story: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is wrong, the story, and how to play it again."""
        return "\n".join([*self.findings.remarks, "--", *self.story, "--", replay(self.plan)])


def replay(plan: Plan) -> str:
    """The command that plays a plan again, from the folder of the repository."""
    return f"{RUN} tests.property.replay '{plan.to_json()}'"


def play(plan: Plan) -> Played:
    """Play a plan. Never raises for what the operator does wrong: that is in the findings."""
    played: Played = run(_play(plan))
    return played


async def _play(plan: Plan) -> Played:
    cluster = make_cluster(plan)
    disasters = Disasters(cluster, plan.disasters)
    with crashes() as broke:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, what: broke.append(what.get("exception") or AssertionError(str(what)))
        )
        cluster.start()
        findings = await _to_the_end(cluster, disasters)
    findings += Findings(stuck=len(broke), remarks=tuple(f"the loop broke: {b!r}" for b in broke))
    turns = [record for record in cluster.task.journal if isinstance(record, Turn)]
    noted = (*sorted(cluster.noted), *_noted(cluster, turns))
    unconfined = (*cluster.unconfined,)
    struck, story = (*disasters.struck,), (*cluster.story,)
    return Played(plan, findings, struck, noted, len(turns), unconfined, story)


def _noted(cluster: Cluster, turns: list[Turn]) -> Iterator[str]:
    """What can be seen of the journal when all is over."""
    last = cluster.task.journal[-1]
    if isinstance(last, End) and last.reason == Reason.DEADLINE_EXCEEDED:
        yield DEADLINE
    if isinstance(last, End) and last.reason == Reason.NETWORK_NOT_ENFORCED:
        yield NOT_CONFINED
    if any(turn.reply.endpoint == "backup" for turn in turns):
        yield FALLBACK
    if cluster.events(e.Queued):
        yield QUEUED
    if any(turn.generation > 1 for turn in turns):
        yield GENERATION
    if any(turn.reruns for turn in turns):
        yield RERUN
    if any(r.outcome is Outcome.UNKNOWN for turn in turns for r in turn.results or ()):
        yield UNKNOWN


async def _to_the_end(cluster: Cluster, disasters: Disasters) -> Findings:
    """Wait for the end of the task and of all that it left, and say what is wrong."""
    findings = Findings()
    try:
        await finished(cluster)
        disasters.close()
        await settled(cluster)
    except TimeoutError as late:
        findings += Findings(stuck=1, remarks=(str(late),))
    finally:
        disasters.close()
        await cluster.end()
    return findings if findings.stuck else inspect(cluster)


async def finished(cluster: Cluster) -> None:
    """Wait until the status says that the task has ended. Raises TimeoutError."""
    while not cluster.task.finished:
        if cluster.now > ENDS_WITHIN:
            raise TimeoutError("the task did not end")
        await asyncio.sleep(1)


async def settled(cluster: Cluster) -> None:
    """Wait until all requests have landed and no pod is left. Raises TimeoutError."""
    until = cluster.now + SETTLES_WITHIN
    while cluster.network.flights or any("/pods/" in path for path in cluster.api.objects):
        if cluster.now > until:
            raise TimeoutError("a pod of a task that has ended was left")
        await asyncio.sleep(1)


def inspect(cluster: Cluster) -> Findings:
    """What is wrong with a task that has ended."""
    uid = cluster.task.ref.uid
    effects = Counter(_first_key(effect.key) for effect in cluster.effects)
    findings = judge(
        Evidence(uid, cluster.task.journal, effects, cluster.task.finished, marked_calls=MARKED)
    )
    try:
        check_all(cluster)
        for operator in cluster.operators:
            places_are_given_back(operator.gate)
        failed = [event.failure.kind for event in cluster.events(e.AskFailed)]
        waits = failed.count(FailureKind.WAIT)
        if len(cluster.operators) == 1:
            spend_is_counted(cluster, waits=waits, never_came=cluster.network.never_came)
        else:
            no_request_is_free(cluster, waits=waits)
    except Broken as broken:
        findings += Findings(**{broken.promise: 1}, remarks=(str(broken),))
    except AssertionError as error:
        findings += Findings(uncounted=1, remarks=(f"requests do not add up: {error}",))
    return findings


def _first_key(key: str) -> str:
    uid, turn, index = key.split("/")[:3]
    return call_key(uid, int(turn), int(index))


# --- the cluster of a plan -----------------------------------------------------------------------


def make_cluster(plan: Plan) -> Cluster:
    """The world that a plan is played in."""
    spec: dict[str, Any] = {
        "goal": "Mend the sum.",
        "limits": {"turns": plan.turns},
        "onUnknownOutcome": plan.on_unknown,
        "completion": plan.completion,
    }
    if plan.deadline_s is not None:
        spec["activeDeadlineSeconds"] = plan.deadline_s
    if plan.fallback:
        spec["model"] = {"fallbacks": [{"name": "backup"}]}
    if plan.has_file:
        spec["files"] = [{"path": "sum.py", "content": "1 - 1"}]
    answers = [*plan.answers, (FINISH,)]
    model = FakeModel(script(*map(_reply, answers)), delay_s=plan.think_s)
    model.failures = [FAILURES[word] for word in plan.model_fails]
    setting = Setting(spec, model, Random(plan.seed), plan.start_s, network=plan.network)
    setting.claim = plan.claim
    cluster = Cluster(setting)
    cluster.tools = _tools(plan, cluster)
    return cluster


def _reply(words: tuple[str, ...]) -> Answer:
    match words:
        case (word,) if word == SAYS:
            return says("I think that I am done.")
        case (word,) if word == TORN:
            return RawReply("", "", (RawCall("bash", "{"),), "tool_calls", Usage(5, 0, 1, 0))
        case _:
            return calls(*(TOOLS[word] for word in words))


def _tools(plan: Plan, cluster: Cluster) -> Tools:
    def dice(key: str) -> Random:
        return Random(f"{plan.seed}/{key}")

    def fails(key: str) -> protocol.Outcome | None:
        bad = dice(key)
        if bad.random() >= plan.share_bad:
            return None
        return bad.choice(
            (protocol.Outcome.FAILED, protocol.Outcome.KILLED, protocol.Outcome.TIMED_OUT)
        )

    def seconds(key: str) -> float:
        if plan.tool_s is not None:
            return plan.tool_s
        return dice(key + "/s").choice((0.0, 0.1, 1.0, 3.0))

    return Tools(seconds, fails, cluster.tools.began)


@contextmanager
def crashes() -> Iterator[list[BaseException]]:
    """The exceptions of loops that broke, which a supervisor only logs; nothing else is logged."""
    found: list[BaseException] = []
    loggers = [logging.getLogger(name) for name in ("ratchet", "ratchet_sandbox")]
    handler = _Collector(found)
    before = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.ERROR)
    try:
        yield found
    finally:
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(level)


class _Collector(logging.Handler):
    def __init__(self, found: list[BaseException]) -> None:
        super().__init__()
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._found.append(record.exc_info[1])
