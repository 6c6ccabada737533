"""A journal in memory with the rules of the real one (ports.Journals): for tests and simulations.

A `Store` is the API server. Several `FakeJournals` can fight over it, as operators would. What a
hook named `faults` raises before an operation is a request that never arrived; what it raises
after one is an answer that was lost.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from ratchet.core.conditions import TERMINAL_PHASES
from ratchet.core.config import Config
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.records import End, Record, Rerun, Result, Start, Turn, start_hash, with_results
from ratchet.core.status import Summary
from ratchet.ports import Claim, JournalRefused, OwnershipLost, TaskRef

MAX_RECORD = 1_500_000
"""Bytes of a record; etcd takes 1.5 MiB."""


class Stage(Enum):
    """When a fault strikes: before an operation is done, or after it."""

    BEFORE = auto()
    AFTER = auto()


Faults = Callable[[str, Stage], Awaitable[None]]
"""Called around each operation with its name (`claim`, `append`, `record_results`, `record_rerun`,
`mark_asking`, `set_sandbox`, `summarise`). It may wait, and may raise JournalAway."""


async def no_faults(operation: str, stage: Stage) -> None:
    """Nothing goes wrong."""


@dataclass(slots=True)
class StoredTask:
    """A task as the store has it. `config` is what it resolves to."""

    ref: TaskRef
    config: Config
    cancel: bool = False
    holder: str = ""
    epoch: int = 0
    started: datetime | None = None
    deadline: datetime | None = None
    asking: Asking | None = None
    lost_requests: int = 0
    sandbox: SandboxRef = field(default_factory=SandboxRef)
    summary: Summary | None = None
    summaries: int = 0
    """Writes of the status so far, claims left out."""
    records: dict[int, Record] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the status says that the task has ended."""
        return self.summary is not None and self.summary.phase in TERMINAL_PHASES

    @property
    def journal(self) -> tuple[Record, ...]:
        """The records in order."""
        return tuple(self.records[number] for number in sorted(self.records))


class Store:
    """What the API server holds. Public, so that tests can look and meddle."""

    def __init__(self) -> None:
        self.tasks: dict[tuple[str, str], StoredTask] = {}

    def add(self, task: TaskRef, config: Config) -> StoredTask:
        """Create a task; one of the same name must be deleted before."""
        name = (task.namespace, task.name)
        if name in self.tasks:
            raise ValueError(f"task {task} is there already: delete it first")
        self.tasks[name] = StoredTask(task, config)
        return self.tasks[name]

    def delete(self, task: TaskRef) -> None:
        """Delete a task, and its records with it."""
        del self.tasks[task.namespace, task.name]

    def find(self, task: TaskRef) -> StoredTask | None:
        """The task with this name and this uid."""
        found = self.tasks.get((task.namespace, task.name))
        return found if found is not None and found.ref.uid == task.uid else None


class FakeJournals:
    """One operator's view of a store (ports.Journals)."""

    def __init__(self, store: Store, faults: Faults = no_faults) -> None:
        self._store = store
        self._faults = faults

    async def claim(
        self, task: TaskRef, holder: str, now: datetime
    ) -> tuple[Claim, FakeJournal] | None:
        """Become the owner; see ports.Journals."""
        await self._faults("claim", Stage.BEFORE)
        stored = self._store.find(task)
        if stored is None or stored.finished:
            return None
        _become_owner(stored, holder, now)
        stored.records.setdefault(0, _start(stored))
        claim = _claim(stored)
        await self._faults("claim", Stage.AFTER)
        return claim, FakeJournal(self._store, task, claim.epoch, self._faults)


class FakeJournal:
    """The records and the status of one task, under one claim (ports.Journal)."""

    def __init__(self, store: Store, task: TaskRef, epoch: int, faults: Faults) -> None:
        self._store = store
        self._task = task
        self._epoch = epoch
        self._faults = faults

    async def append(self, record: Turn | End) -> tuple[Turn | End, bool]:
        """Create a record; see ports.Journal."""
        await self._faults("append", Stage.BEFORE)
        _check(record)
        task = self._store.find(self._task)
        # A record of a task that is gone is taken, as the API server does, and goes the same way.
        records: dict[int, Record] = {} if task is None else task.records
        stored = records.setdefault(record.number, _bare(record))
        if isinstance(stored, Start):
            raise JournalRefused(f"record {record.number} of {self._task} is a second Start")
        await self._faults("append", Stage.AFTER)
        return stored, _bare(stored) == _bare(record)

    async def record_results(self, turn: Turn, results: tuple[Result, ...]) -> Turn:
        """Write the results of a turn once; see ports.Journal."""
        await self._faults("record_results", Stage.BEFORE)
        task, stored = self._turn(turn)
        if stored.results is None:
            self._ours()
            if stored.reruns != turn.reruns:
                raise JournalRefused(f"turn {turn.number} of {self._task} has other re-runs")
            stored = with_results(stored, results)
            _check(stored)
            task.records[turn.number] = stored
        await self._faults("record_results", Stage.AFTER)
        return stored

    async def record_rerun(self, turn: Turn, rerun: Rerun) -> Turn:
        """Append a re-run to a turn; see ports.Journal."""
        await self._faults("record_rerun", Stage.BEFORE)
        task, stored = self._turn(turn)
        known = {known.key for known in stored.reruns}
        if stored.results is None and rerun.key not in known:
            self._ours()
            stored = replace(stored, reruns=(*stored.reruns, rerun))
            task.records[turn.number] = stored
        await self._faults("record_rerun", Stage.AFTER)
        return stored

    async def mark_asking(self, asking: Asking, summary: Summary) -> None:
        """Say that a request is being sent; see ports.Journal."""
        await self._faults("mark_asking", Stage.BEFORE)
        task = self._ours()
        _summarise(task, summary)
        task.asking = asking
        await self._faults("mark_asking", Stage.AFTER)

    async def set_sandbox(self, sandbox: SandboxRef) -> None:
        """Name the task's sandbox; see ports.Journal."""
        await self._faults("set_sandbox", Stage.BEFORE)
        self._ours().sandbox = sandbox
        await self._faults("set_sandbox", Stage.AFTER)

    async def summarise(self, summary: Summary) -> None:
        """Write the ordinary status; see ports.Journal."""
        await self._faults("summarise", Stage.BEFORE)
        _summarise(self._ours(), summary)
        await self._faults("summarise", Stage.AFTER)

    def _found(self) -> StoredTask:
        task = self._store.find(self._task)
        if task is None:
            raise OwnershipLost(f"task {self._task} (uid {self._task.uid}) no longer exists")
        return task

    def _ours(self) -> StoredTask:
        task = self._found()
        if task.epoch != self._epoch:
            text = f"task {self._task} is owned by {task.holder} (epoch {task.epoch}, ours is {self._epoch})"
            raise OwnershipLost(text)
        return task

    def _turn(self, turn: Turn) -> tuple[StoredTask, Turn]:
        task = self._found()
        stored = task.records.get(turn.number)
        if not isinstance(stored, Turn) or _bare(stored) != _bare(turn):
            self._ours()
            raise JournalRefused(f"turn {turn.number} of {self._task} is not as it was")
        return task, stored


def _become_owner(task: StoredTask, holder: str, now: datetime) -> None:
    task.holder = holder
    task.epoch += 1
    if task.started is None:
        task.started = now.replace(microsecond=0)
        seconds = task.config.active_deadline_s
        task.deadline = None if seconds is None else task.started + timedelta(seconds=seconds)
    if task.asking is not None and task.asking.turn not in task.records:
        task.asking = replace(task.asking, lost=task.asking.lost + 1)
        task.lost_requests += 1


def _start(task: StoredTask) -> Start:
    return Start(task.config, task.epoch, start_hash(task.config.to_json()))


def _claim(task: StoredTask) -> Claim:
    assert task.started is not None  # set by the claim
    return Claim(
        task=task.ref,
        epoch=task.epoch,
        started=task.started,
        deadline=task.deadline,
        cancel=task.cancel,
        asking=task.asking,
        lost_requests=task.lost_requests,
        sandbox=task.sandbox,
        records=task.journal,
    )


def _summarise(task: StoredTask, summary: Summary) -> None:
    task.summary = summary
    task.summaries += 1
    task.lost_requests = summary.lost_requests
    recorded = task.asking is not None and task.asking.turn <= summary.turns
    if task.finished or not summary.asks or recorded:
        task.asking = None


def _bare(record: Turn | End) -> Turn | End:
    return replace(record, reruns=(), results=None) if isinstance(record, Turn) else record


def _check(record: Turn | End) -> None:
    """What the API server would refuse, or change, has no place in a record."""
    try:
        size = len(json.dumps(asdict(record), ensure_ascii=False).encode("utf-8"))
    except UnicodeEncodeError as error:
        raise JournalRefused(f"record {record.number} holds text that is no UTF-8") from error
    if size > MAX_RECORD:
        raise JournalRefused(f"record {record.number} has {size} bytes, at most {MAX_RECORD}")
