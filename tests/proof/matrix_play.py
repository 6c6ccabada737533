"""One play of a shape, with a fault or without: what came of it, and what is wrong with that."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ratchet.core import events as e
from ratchet.core.keys import call_key
from ratchet.core.records import End, EndOutcome, Outcome, Turn
from ratchet.core.state import State
from ratchet.core.tools import CATALOGUE, Home
from ratchet.failpoints import Fault, Point
from ratchet.fakes.clock import run
from ratchet.shell.processfaults import Strike

from tests.proof.judging import Evidence, judge
from tests.proof.matrix_faults import Plot
from tests.proof.matrix_shapes import SHAPES
from tests.proof.rows import Findings
from tests.unit.core.invariants import check_all
from tests.unit.core.world import TASK, World, brief

ENDS_WITHIN_S = 3_600.0
"""Pretended seconds within which a task must have ended."""
RESTART_S = 1.0
"""Pretended seconds until somebody else goes on after a process was lost."""
LATE_WITHIN_S = 30.0
"""Pretended seconds that a call which was delivered again may take."""
IN_SANDBOX = frozenset(tool.name for tool in CATALOGUE.values() if tool.home is Home.SANDBOX)
Transcript = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What the run of a shape is when no failpoint strikes."""

    findings: Findings
    passed: Counter[Point]
    succeeded: frozenset[tuple[Point, int]]
    transcript: Transcript
    unknown: int
    generation: int


@dataclass(frozen=True, slots=True)
class Played:
    """What came of one play."""

    findings: Findings
    turns: int
    struck: bool
    resume_s: float | None
    """Seconds from the strike to the next record; None if none was written after it."""


@cache
def undisturbed(shape: str) -> Undisturbed:
    """The run of a shape in which no failpoint strikes."""
    world = SHAPES[shape].world()
    plot = Plot(world)
    findings = _played_out(plot)
    return Undisturbed(
        findings,
        plot.passed,
        frozenset(plot.succeeded),
        transcript(world),
        _unknown(world),
        world.task.sandbox.generation,
    )


def play(
    shape: str, strike: Strike, stands_s: float = 0.0, story: list[str] | None = None
) -> Played:
    """Play a shape with a fault. Never raises: what breaks is a finding. `story` is written on."""
    world = SHAPES[shape].world()
    plot = Plot(world, strike, stands_s)
    if story is not None:
        _tell(world, story)
    findings = _played_out(plot) + _against(undisturbed(shape), world)
    if plot.struck_at is None:
        findings += Findings(stuck=1, remarks=("the fault never struck",))
    resumed = None
    if plot.struck_at is not None and plot.resumed_at is not None:
        resumed = plot.resumed_at - plot.struck_at
    return Played(findings, len(world.turns), plot.struck_at is not None, resumed)


def _played_out(plot: Plot) -> Findings:
    """Run a world to its end; what is wrong with it by itself."""
    world, findings = plot.world, Findings()
    try:
        run(_run(plot))
    except TimeoutError:
        findings = Findings(remarks=(f"no end within {ENDS_WITHIN_S:g} s",))
    # Whatever a part of the operator raises here is what the matrix is to find.
    except Exception as error:  # noqa: BLE001
        findings = _raised(error)
    _forget_requests_sent_twice(world, plot.strike)
    return _with_invariants(world, findings + _judged(world)) + _spent(world, plot.strike)


async def _run(plot: Plot) -> None:
    """Until the task has ended, and all that was under way has come to rest."""
    world = plot.world
    world.start()
    async with asyncio.timeout(ENDS_WITHIN_S):
        await _keep_running(world)
    async with asyncio.timeout(ENDS_WITHIN_S):
        work = [owner.work for owner in world.owners if owner.work is not None]
        await asyncio.gather(*work, return_exceptions=True)
    if plot.late:
        await asyncio.wait(plot.late, timeout=LATE_WITHIN_S)
    for ended in work:
        if not ended.cancelled():
            ended.result()


async def _keep_running(world: World) -> None:
    """Start an owner a second after the last one was lost, until the task has ended."""
    while True:
        if working := list(_working(world)):
            await asyncio.wait(working, timeout=RESTART_S)
        elif world.task.finished:
            return
        else:
            await asyncio.sleep(RESTART_S)
            if not list(_working(world)):
                world.start()


def _working(world: World) -> Iterator[asyncio.Task[State | None]]:
    """One that stands still counts as lost when another one was started in its place."""
    for owner in world.owners:
        stands_still = owner.frozen > world.now and owner is not world.owners[-1]
        if owner.work is not None and not owner.work.done() and not stands_still:
            yield owner.work


def transcript(world: World) -> Transcript:
    """What was said and done, without times, attempts, owners and costs."""
    return tuple(
        _end(record) if isinstance(record, End) else _turn(record)
        for record in world.task.journal[1:]
        if isinstance(record, Turn | End)
    )


def _turn(turn: Turn) -> Transcript:
    calls = tuple((call.tool, call.arguments) for call in turn.reply.calls)
    results = tuple((r.index, r.outcome, r.content) for r in turn.results or ())
    return turn.reply.verdict, turn.reply.text, turn.reply.note, calls, results


def _end(end: End) -> Transcript:
    """The patch is promised with a success only: other ends do not wait for a sandbox."""
    succeeded = end.outcome is EndOutcome.SUCCEEDED
    patch = end.patch.sha256 if end.patch is not None and succeeded else ""
    return end.outcome, end.reason, end.summary, end.result, patch


# --- what is wrong -------------------------------------------------------------------------------


def _judged(world: World) -> Findings:
    """What ran and what is recorded, compared. The key of a re-run is that of its call."""
    effects = Counter(_call_of(key) for key in world.sandboxes.effects)
    return judge(Evidence(TASK.uid, world.task.journal, effects, world.task.finished, IN_SANDBOX))


def _call_of(key: str) -> str:
    uid, turn, index, *_ = key.split("/")
    return call_key(uid, int(turn), int(index))


def _with_invariants(world: World, findings: Findings) -> Findings:
    """The first broken invariant; it counts unless the judge has counted it already."""
    if not world.task.finished:
        return findings  # they are about tasks that have ended
    try:
        check_all(world)
    except AssertionError as error:
        promise = getattr(error, "promise", "holes")
        counts = {} if getattr(findings, promise) else {promise: 1}
        return findings + Findings(**counts, remarks=(str(error),))
    return findings


def _raised(error: Exception) -> Findings:
    """What was raised while the task ran: a refusal of the strict model, or a fault of ours."""
    text = "".join(traceback.format_exception(error)[-4:])
    refused = isinstance(error, AssertionError)
    return Findings(holes=int(refused), stuck=int(not refused), remarks=(text,))


def _against(base: Undisturbed, world: World) -> Findings:
    """The transcript is that of the undisturbed run, unless an outcome or a sandbox was lost."""
    more_unknown = _unknown(world) > base.unknown
    more_sandboxes = world.task.sandbox.generation > base.generation
    if more_unknown or more_sandboxes or transcript(world) == base.transcript:
        return Findings()
    remark = f"the transcript differs:\n{transcript(world)}\nnot\n{base.transcript}"
    return Findings(holes=1, remarks=(remark,))


def _unknown(world: World) -> int:
    outcomes = [r.outcome for turn in world.turns for r in turn.results or ()]
    return outcomes.count(Outcome.UNKNOWN)


def _spent(world: World, strike: Strike | None) -> Findings:
    """Whether the requests that the model saw are those that are recorded or counted as lost.

    Of an owner that was lost, and of a request that was given up or failed on its way, nobody can
    say whether the model saw it: it is counted.
    """
    summary = world.task.summary
    lost = summary.lost_requests if summary is not None else world.task.lost_requests
    uncounted = len(world.model.seen) - len(world.turns) - lost
    on_its_way = strike is not None and strike.point is Point.ASK
    doubtful = len(world.events(e.AskWithdrawn)) + len(world.owners) - 1 + on_its_way
    if -doubtful <= uncounted <= 0:
        return Findings()
    text = f"{len(world.model.seen)} requests, {len(world.turns)} recorded, {lost} counted as lost"
    return Findings(uncounted=abs(uncounted), remarks=(text,))


def _forget_requests_sent_twice(world: World, strike: Strike | None) -> None:
    """What the network repeats is one request of the operator's, as its id shows."""
    if strike is None or (strike.point, strike.fault) != (Point.ASK, Fault.TWICE):
        return
    by_id = {request.rid: request for request in world.model.seen}
    world.model.seen[:] = by_id.values()


# --- the story -----------------------------------------------------------------------------------


def _tell(world: World, story: list[str]) -> None:
    world.tellers.append(lambda who, what: story.append(f"{world.now:9.3f} {who}: {what}"))
    world.witnesses.append(
        lambda seen: story.append(f"{seen.at:9.3f} {seen.owner}: {brief(seen.event)}")
    )
