"""A journal in memory, with the fences of the real one: create-if-absent, epochs, write-once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ratchet.core.config import Config
from ratchet.core.evolve import begin
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.records import End, Record, Rerun, Result, Start, Turn, start_hash, with_results
from ratchet.core.status import Summary
from ratchet.ports import Claim, JournalRefused, OwnershipLost, TaskRef


@dataclass(slots=True)
class FakeTask:
    """An AgentTask and its records, as an API server would hold them."""

    ref: TaskRef
    config: Config
    cancel: bool = False
    epoch: int = 0
    holder: str = ""
    started: datetime | None = None
    deadline: datetime | None = None
    asking: Asking | None = None
    sandbox: SandboxRef = field(default_factory=SandboxRef)
    lost_requests: int = 0
    records: dict[int, Record] = field(default_factory=dict)
    summary: Summary | None = None
    deleted: bool = False

    @property
    def finished(self) -> bool:
        return self.summary is not None and any(
            c.type == "Finished" and c.status for c in self.summary.conditions
        )


@dataclass(slots=True)
class FakeJournals:
    """All tasks of a pretended cluster.

    `fault` is called with `before:<op>` and `after:<op>` and may raise
    JournalAway: raised after, the write has happened and its answer is lost.
    """

    tasks: dict[str, FakeTask] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    fault: Callable[[str], None] = lambda _: None

    def add(self, task: FakeTask) -> FakeTask:
        self.tasks[str(task.ref)] = task
        return task

    async def claim(
        self, task: TaskRef, holder: str, now: datetime
    ) -> tuple[Claim, FakeJournal] | None:
        await asyncio.sleep(0)
        self.fault("before:claim")
        stored = self.tasks.get(str(task))
        if stored is None or stored.deleted or stored.ref.uid != task.uid or stored.finished:
            return None
        self._own(stored, holder, now)
        if 0 not in stored.records:
            text = stored.config.to_json()
            stored.records[0] = Start(stored.config, stored.epoch, start_hash(text))
        self.writes.append("claim")
        self.fault("after:claim")
        return self._claim(stored), FakeJournal(self, stored, stored.epoch)

    def _own(self, stored: FakeTask, holder: str, now: datetime) -> None:
        stored.epoch += 1
        stored.holder = holder
        if stored.started is None:
            stored.started = now
            seconds = stored.config.active_deadline_s
            stored.deadline = now + timedelta(seconds=seconds) if seconds else None
        asking, number = stored.asking, len(stored.records) or 1
        if asking is not None and asking.turn == number:
            stored.asking = replace(asking, lost=asking.lost + 1)
            stored.lost_requests += 1

    def _claim(self, stored: FakeTask) -> Claim:
        assert stored.started is not None
        return Claim(
            task=stored.ref,
            epoch=stored.epoch,
            started=stored.started,
            deadline=stored.deadline,
            cancel=stored.cancel,
            asking=stored.asking,
            lost_requests=stored.lost_requests,
            sandbox=stored.sandbox,
            records=tuple(stored.records[number] for number in sorted(stored.records)),
        )


@dataclass(slots=True)
class FakeJournal:
    """The journal port of one claim."""

    home: FakeJournals
    task: FakeTask
    epoch: int

    async def _commit(self, op: str) -> None:
        """What every write goes through: a moment, a chance to fail, and the fence."""
        await asyncio.sleep(0)
        self.home.fault(f"before:{op}")
        if self.task.deleted:
            raise OwnershipLost(f"task {self.task.ref} is gone")

    def _done(self, op: str) -> None:
        self.home.writes.append(op)
        self.home.fault(f"after:{op}")

    def _fence(self) -> None:
        if self.task.epoch != self.epoch:
            raise OwnershipLost(
                f"task {self.task.ref} has epoch {self.task.epoch}, not {self.epoch}"
            )

    def _turn(self, turn: Turn) -> Turn:
        stored = self.task.records.get(turn.number)
        if not isinstance(stored, Turn):
            raise JournalRefused(f"there is no turn {turn.number} of task {self.task.ref}")
        return stored

    async def append(self, record: Turn | End) -> tuple[Turn | End, bool]:
        await self._commit("append")
        stored = self.task.records.get(record.number)
        if stored is not None:
            assert not isinstance(stored, Start)
            return stored, stored == record
        self.task.records[record.number] = record
        self._done("append")
        return record, True

    async def record_results(self, turn: Turn, results: tuple[Result, ...]) -> Turn:
        await self._commit("results")
        stored = self._turn(turn)
        if stored.results is None:
            stored = with_results(stored, results)
            self.task.records[turn.number] = stored
            self._done("results")
        return stored

    async def record_rerun(self, turn: Turn, rerun: Rerun) -> Turn:
        await self._commit("rerun")
        stored = self._turn(turn)
        if stored.results is None and rerun not in stored.reruns:
            stored = replace(stored, reruns=(*stored.reruns, rerun))
            self.task.records[turn.number] = stored
            self._done("rerun")
        return stored

    async def mark_asking(self, asking: Asking, summary: Summary) -> None:
        await self._commit("asking")
        self._fence()
        self.task.asking, self.task.summary = asking, summary
        self.task.lost_requests = summary.lost_requests
        self._done("asking")

    async def set_sandbox(self, sandbox: SandboxRef) -> None:
        await self._commit("sandbox")
        self._fence()
        self.task.sandbox = sandbox
        self._done("sandbox")

    async def summarise(self, summary: Summary) -> None:
        await self._commit("summary")
        self._fence()
        self.task.summary = summary
        self.task.lost_requests = summary.lost_requests
        self._done("summary")


def replayed(task: FakeTask) -> object:
    """The state that the next owner would begin with."""
    claim = FakeJournals()._claim(task)
    return begin(
        task_uid=claim.task.uid,
        epoch=claim.epoch,
        started=claim.started,
        deadline=claim.deadline,
        cancelled=claim.cancel,
        asking=claim.asking,
        lost_requests=claim.lost_requests,
        sandbox=claim.sandbox,
        records=claim.records,
    )
