"""Which failpoints of the sandbox's server and runner are tried, and what else can befall a sandbox."""

from __future__ import annotations

from collections.abc import Iterator

from ratchet_sandbox.failpoints import DROPPABLE, Fault, Point

from tests.proof.kills_cases import Case

RUNNER = (Point.CALL_RECEIVED, Point.EFFECT_DONE, Point.RESULT_KEPT, Point.RESULT_SENT)
SERVER = tuple(point for point in Point if point not in RUNNER)
ACTS = ("kill-runner", "kill-server", "lose-pod", "lose-node")
POLICIES = ("Report", "Retry")


def cases() -> tuple[Case, ...]:
    """All of them."""
    return (*_server(), *_runner(), *_in_a_call())


def _server() -> Iterator[Case]:
    for point in SERVER:
        nth = 1 if point is Point.EPOCH_RAISED else 2
        faults = [Fault.KILL, Fault.STOP] + ([Fault.DROP] if point in DROPPABLE else [])
        for fault in faults:
            yield Case(f"sandbox server at {point}", (), server=f"{point}={fault}@{nth}")


def _runner() -> Iterator[Case]:
    for point in RUNNER:
        for policy in POLICIES:
            spec = {"onUnknownOutcome": policy}
            yield Case(f"runner at {point}", (), runner=f"{point}={Fault.KILL}@2", spec=spec)
        yield Case(f"runner at {point}", (), runner=f"{point}={Fault.STOP}@2")


def _in_a_call() -> Iterator[Case]:
    for act in ACTS:
        for policy in POLICIES:
            spec = {"onUnknownOutcome": policy}
            yield Case(f"{act} in a call".replace("-", " "), (), "slow", act=act, spec=spec)
