"""One trial: tasks begin, the fault is made in the middle of them, and they are judged."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ratchet.core.conditions import TERMINAL_PHASES
from ratchet.core.config import UnknownPolicy
from ratchet.core.keys import call_key
from ratchet.core.records import Record, Turn
from ratchet.edges import wire
from ratchet.edges.kube import ApiError, ApiUnreachable
from ratchet.ports import TaskRef

from tests.cluster import ClusterError
from tests.proof.cluster.expected import amiss
from tests.proof.cluster.faults import strike
from tests.proof.cluster.place import NAMESPACE, Object, Place, Task
from tests.proof.cluster.plan import Loses, Moment, Trial
from tests.proof.cluster.waiting import LOOK_S, comes_true
from tests.proof.judging import Evidence, judge
from tests.proof.rows import Findings

REACHED_WITHIN_S = 180.0
"""From the creation of the tasks to the moment of the fault."""
ENDED_WITHIN_S = 180.0
"""From the end of the fault to that of the tasks."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one trial found."""

    findings: Findings
    resume_s: tuple[float, ...] = ()
    """Of each task."""
    kills: int = 0
    turns: int = 0

    def __str__(self) -> str:
        seconds = ", ".join(f"{second:.1f}" for second in self.resume_s)
        unknown = self.findings.unknown_reported
        verdict = f"BROKEN: {'; '.join(self.findings.remarks)}" if self.findings.broken else "good"
        return f"resumed after {seconds or '-'} s, {unknown} unknown, {verdict}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A thing that was written into the journal."""

    number: int
    results: bool
    epoch: int


async def attempt(place: Place, trial: Trial, suffix: str = "") -> Found:
    """Run a trial. Raises ClusterError if the cluster, and not the operator, did not go on."""
    async with place.storage(trial):
        return await _attempt(place, trial, suffix)


async def _attempt(place: Place, trial: Trial, suffix: str) -> Found:
    tasks = await place.begin(trial, suffix)
    if not await _reached(place, trial, tasks[0]):
        found = await _judged(place, trial, tasks)
        await _keep_evidence(place, trial, tasks)
        return Found(found + Findings(stuck=1, remarks=("the moment of the fault did not come",)))
    before = [await _marks(place, task) for task in tasks]
    begin = time.monotonic()
    watches = [
        asyncio.create_task(_resumed(place, trial, task, known, begin))
        for task, known in zip(tasks, before, strict=True)
    ]
    try:
        kills = await _struck(place, trial, tasks)
        await _not_too_late(place, trial, tasks)
        if trial.kind.alone:
            await place.healthy()
        await asyncio.gather(*(place.ended(task, ENDED_WITHIN_S) for task in tasks))
        done, _ = await asyncio.wait(watches, timeout=5 * LOOK_S)
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    resumed = tuple(watch.result() for watch in watches if watch in done)
    found = await _judged(place, trial, tasks)
    turns = [item for task in tasks for item in await place.records(task.uid)]
    if found.broken:
        await _keep_evidence(place, trial, tasks)
    await place.delete(tasks)
    count = len([item for item in turns if item["spec"]["kind"] == "Turn"])
    return Found(found, resumed, kills, count)


async def _struck(place: Place, trial: Trial, tasks: Sequence[Task]) -> int:
    try:
        return await strike(place, trial, tasks)
    except (ApiError, ApiUnreachable) as error:
        raise ClusterError(f"the fault could not be made: {error}") from error


async def _not_too_late(place: Place, trial: Trial, tasks: Sequence[Task]) -> None:
    """Raise ClusterError if the tasks ended by themselves while the fault was being made.

    An operator that is replaced works until its successor is ready, which a busy machine may take
    longer for than the tasks have left.
    """
    if trial.kind.loses is not Loses.OPERATOR:
        return
    seen = [await place.status(task.name) for task in tasks]
    epochs = {(status.get("owner") or {}).get("epoch") for status in seen}
    if epochs == {1} and all(status.get("phase") in TERMINAL_PHASES for status in seen):
        raise ClusterError("the tasks ended before the operator was gone, so nothing was tried")


async def _reached(place: Place, trial: Trial, task: Task) -> bool:
    """Wait for the moment of the fault in the first task; False if it ends before that."""
    comes = asyncio.create_task(_comes(place, trial, task.uid))
    ends = asyncio.create_task(place.ended(task, REACHED_WITHIN_S))
    try:
        await asyncio.wait((comes, ends), return_when=asyncio.FIRST_COMPLETED)
        return comes.done() and comes.result()
    finally:
        comes.cancel()
        ends.cancel()
        await asyncio.gather(comes, ends, return_exceptions=True)


async def _comes(place: Place, trial: Trial, uid: str) -> bool:
    if trial.moment is Moment.CALL:
        key = call_key(uid, trial.turn, 0)

        async def marked() -> bool:
            return place.ledger.counts()[key] > 0

        await comes_true(marked, 2 * REACHED_WITHIN_S, every_s=LOOK_S / 4)
    else:
        gone = trial.moment is Moment.BETWEEN
        await place.fake.wait_until(
            lambda seen: any(
                one.key == uid and one.turn == trial.turn and (one.left is not None) >= gone
                for one in seen
            ),
            timeout_s=None,
        )
    await asyncio.sleep(trial.wait_s)
    return True


# --- resuming ------------------------------------------------------------------------------------


async def _marks(place: Place, task: Task) -> frozenset[Mark]:
    """All that the journal holds now; nothing if it cannot be read now."""
    with suppress(ApiError, ApiUnreachable):
        return frozenset(_marks_of(await place.records(task.uid, timeout_s=1.0)))
    return frozenset()


def _marks_of(items: Sequence[Object]) -> Iterator[Mark]:
    for item in items:
        number, epoch = item["spec"]["number"], item["spec"]["epoch"]
        yield Mark(number, False, epoch)
        status = item.get("status") or {}
        if status.get("results") is not None:
            yield Mark(number, True, max(epoch, status.get("epoch") or 0))


async def _resumed(
    place: Place, trial: Trial, task: Task, known: frozenset[Mark], begin: float
) -> float:
    """Seconds until more is in the journal; by a new owner, if the fault took the old one."""
    lost = trial.kind.loses is Loses.OPERATOR
    epoch = max((mark.epoch for mark in known), default=0) if lost else -1
    while True:
        new = await _marks(place, task) - known
        if any(mark.epoch > epoch for mark in new):
            return time.monotonic() - begin
        await asyncio.sleep(LOOK_S)


# --- judging -------------------------------------------------------------------------------------


async def _judged(place: Place, trial: Trial, tasks: Sequence[Task]) -> Findings:
    found = Findings()
    effects = place.ledger.counts()
    for task, policy in zip(tasks, trial.policies, strict=True):
        status = (await place.task(task.name)).get("status") or {}
        found += _of_task(
            place, trial, policy, task, status, await place.records(task.uid), effects
        )
    return found


def _of_task(
    place: Place,
    trial: Trial,
    policy: UnknownPolicy,
    task: Task,
    status: dict[str, Any],
    items: Sequence[Object],
    effects: Counter[str],
) -> Findings:
    ref = TaskRef(NAMESPACE, task.name, task.uid)
    try:
        records: list[Record] = [wire.from_object(ref, item) for item in items]
    except wire.Unreadable as error:
        return Findings(holes=1, remarks=(f"{task.name}: {error}",))
    seen = [request for request in place.fake.requests if request.key == task.uid]
    ended = status.get("completionTime") is not None
    found = judge(
        Evidence(
            task_uid=task.uid,
            records=records,
            effects=effects,
            ended=ended,
            refused_histories=len([one for one in seen if one.outcome == "refused"]),
        )
    )
    recorded = len([record for record in records if isinstance(record, Turn)])
    uncounted = len(seen) - recorded - int(status.get("lostRequests") or 0)
    if uncounted > 0:
        text = f"{task.name}: {uncounted} requests were seen and are not counted"
        found += Findings(uncounted=uncounted, remarks=(text,))
    if not ended:
        short = {key: value for key, value in status.items() if key != "conditions"}
        return found + Findings(remarks=(f"{task.name}: {json.dumps(short)}",))
    wrong = tuple(f"{task.name}: {text}" for text in amiss(trial, policy, status, records))
    return found + Findings(stuck=1 if wrong else 0, remarks=wrong)


async def _keep_evidence(place: Place, trial: Trial, tasks: Sequence[Task]) -> None:
    """Journal, status and pods of the tasks, and the operator's log, for one who looks for causes."""
    objects = {
        task.name: {"task": await place.task(task.name), "records": await place.records(task.uid)}
        for task in tasks
    }
    (place.folder / f"{trial.name}.json").write_text(json.dumps(objects, indent=2))
