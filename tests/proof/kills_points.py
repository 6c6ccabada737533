"""Which failpoints of the operator are tried with which fault, and how a task comes to each."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ratchet.failpoints import Fault, Point

from tests.proof.kills_cases import Case

ONCE = (
    Point.CLAIM, Point.CLAIM_OWNER, Point.CLAIM_START, Point.BIND_LEDGER, Point.PREPARE,
    Point.PREPARE_POD, Point.PREPARE_SECRET, Point.PREPARE_EPOCH, Point.NETWORK, Point.PATCH,
    Point.APPEND_END, Point.CONCLUDE, Point.REMOVE,
)  # fmt: skip
"""Passed once by a task that nobody disturbs, or worth it the first time only."""
OFTEN = (
    Point.MARK_ASKING, Point.ASK, Point.APPEND_TURN, Point.RUN, Point.RECORD_RESULTS,
    Point.SUMMARISE,
)  # fmt: skip
"""Passed again and again; which time is drawn."""
TIMES = {Point.RUN: 5, Point.SUMMARISE: 1, Point.MARK_ASKING: 3}
"""How often a plain task passes them at least, if not as often as it has turns before the last."""
KILLS = (Fault.KILL_BEFORE, Fault.KILL_AFTER)
UNHEARD = (Fault.ERROR, Fault.ANSWER_LOST, Fault.NEVER_ARRIVES, Fault.TWICE)
IMPORTANT = (
    Point.CLAIM_OWNER, Point.ASK, Point.APPEND_TURN, Point.RUN, Point.RECORD_RESULTS,
    Point.APPEND_END, Point.BIND_LEDGER, Point.MARK_ASKING, Point.PREPARE_EPOCH,
)  # fmt: skip
RETRY = {"onUnknownOutcome": "Retry"}
FAIL = {"onUnknownOutcome": "Fail"}


def cases(chance: random.Random) -> tuple[Case, ...]:
    """All of them."""
    return (*_killed(chance), *_unheard(chance))


def _killed(chance: random.Random) -> Iterator[Case]:
    for fault in KILLS:
        for point in ONCE:
            yield _plain(point, fault, 1)
        for point in OFTEN:
            yield _plain(point, fault, chance.randint(1, TIMES.get(point, 3)))
        yield from _on_the_way(fault)


def _unheard(chance: random.Random) -> Iterator[Case]:
    for point in IMPORTANT:
        often = TIMES.get(point, 3) if point in OFTEN else 1
        for fault in UNHEARD:
            yield _plain(point, fault, chance.randint(1, often))


def _plain(point: Point, fault: Fault, nth: int) -> Case:
    kind = "killed" if fault in KILLS else "no or false answers"
    return Case(f"operator at {point}: {kind}", (f"{point}={fault}@{nth}",))


def _on_the_way(fault: Fault) -> Iterator[Case]:
    """Points that are passed only when something else has gone wrong before."""
    died_in_a_call = f"{Point.RUN}={Fault.KILL_AFTER}@2"
    for point in (Point.CLAIM_READ, Point.CLAIM_FENCE):
        yield _case(point, fault, "plain", before=died_in_a_call)
    yield _case(Point.RAISE_GENERATION, fault, "slow", act="lose-pod")
    yield _case(Point.RAISE_GENERATION, fault, "slow", act="lose-pod", spec=RETRY)
    yield _case(Point.APPEND_END, fault, "slow", act="lose-pod", spec=FAIL)
    yield _case(Point.RECORD_RERUN, fault, "slow", act="lose-pod", spec=RETRY)
    yield _case(Point.RECORD_RERUN, fault, "slow", act="kill-runner", spec=RETRY)
    yield _case(Point.INTERRUPT, fault, "stopped", act="cancel")
    yield _case(Point.DIGEST, fault, "edit", runner="call-received=kill@2")
    yield _case(Point.DIGEST, fault, "edit", runner="effect-done=kill@2")


def _case(
    point: Point,
    fault: Fault,
    shape: str,
    *,
    before: str = "",
    runner: str = "",
    act: str = "",
    spec: dict[str, str] | None = None,
) -> Case:
    operators = (before, f"{point}={fault}") if before else (f"{point}={fault}",)
    return Case(
        f"operator at {point}: killed", operators, shape, runner=runner, act=act, spec=spec or {}
    )
