"""A journal in memory with the rules of the real one (ports.Journals): for tests and simulations.

A `Store` is the API server. Several `FakeJournals` can fight over it, as operators would. What a
hook named `faults` raises before an operation is a request that never arrived; what it raises
after one is an answer that was lost.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import TypeVar

from ratchet.core.conditions import TERMINAL_PHASES
from ratchet.core.config import Config
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.records import End, Record, Rerun, Result, Start, Turn, start_hash, with_results
from ratchet.core.status import Summary
from ratchet.failpoints import Point, step
from ratchet.ports import Claim, JournalAway, JournalRefused, OwnershipLost, TaskRef

MAX_RECORD = 1_500_000
"""Bytes of a record; etcd takes 1.5 MiB."""
TRIES = 4
"""Times that a claim is tried on what was read anew."""

T = TypeVar("T")


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
    lost_tokens: int = 0
    sandbox: SandboxRef = field(default_factory=SandboxRef)
    summary: Summary | None = None
    summaries: int = 0
    """Writes of the status so far, claims left out."""
    records: dict[int, Record] = field(default_factory=dict)
    versions: Counter[int] = field(default_factory=Counter)
    """By number of a turn: how often it was written over."""

    @property
    def version(self) -> Hashable:
        """What differs after every write of the task itself."""
        return self.epoch, self.cancel, self.asking, self.sandbox, self.summaries

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
        """Become the owner; see ports.Journals. Request by request, as at an API server."""
        await self._faults("claim", Stage.BEFORE)
        for _ in range(TRIES):
            stored = self._store.find(task)
            if stored is None or stored.finished:
                return None
            try:
                claim, seen = await self._claim(stored, holder, now)
            except _Changed:
                continue
            await self._faults("claim", Stage.AFTER)
            return claim, FakeJournal(self._store, task, claim.epoch, self._faults, seen)
        raise JournalAway(f"task {task} was changed {TRIES} times while it was being claimed")

    async def _claim(
        self, task: StoredTask, holder: str, now: datetime
    ) -> tuple[Claim, dict[int, int]]:
        """The claim, and the versions of the turns that may still be written."""
        began = 0 in task.records
        claim = await _become_owner(task, holder, now)
        records: tuple[Record, ...] = ()
        seen: dict[int, int] = {}
        if began or claim.epoch > 1:
            records, seen = await step(Point.CLAIM_READ, _request(lambda: _read(task)), JournalAway)
        if claim.epoch > 1:
            for number, version in seen.items():
                fence = _request(partial(_fence, task, number, version))
                seen[number] = await step(Point.CLAIM_FENCE, fence, JournalAway)
        return replace(claim, records=records or (await _start(task, claim.epoch),)), seen


class FakeJournal:
    """The records and the status of one task, under one claim (ports.Journal)."""

    def __init__(
        self, store: Store, task: TaskRef, epoch: int, faults: Faults, seen: Mapping[int, int]
    ) -> None:
        self._store = store
        self._task = task
        self._epoch = epoch
        self._faults = faults
        self._seen = dict(seen)
        """The version of each turn that was read or written last."""

    async def append(self, record: Turn | End) -> tuple[Turn | End, bool]:
        """Create a record; see ports.Journal."""
        await self._faults("append", Stage.BEFORE)
        _check(record)
        task = self._store.find(self._task)
        # A record of a task that is gone is taken, as the API server does, and goes the same way.
        records: dict[int, Record] = {} if task is None else task.records
        created = record.number not in records
        stored = records.setdefault(record.number, _bare(record))
        if isinstance(stored, Start):
            raise JournalRefused(f"record {record.number} of {self._task} is a second Start")
        if task is not None:
            if not created:
                self._take_over(task, stored)
            self._seen[record.number] = task.versions[record.number]
        await self._faults("append", Stage.AFTER)
        return stored, _bare(stored) == _bare(record)

    async def record_results(self, turn: Turn, results: tuple[Result, ...]) -> Turn:
        """Write the results of a turn once; see ports.Journal."""
        await self._faults("record_results", Stage.BEFORE)
        task, stored = self._turn(turn)
        if stored.results is None:
            self._over_what_was_read(task, turn.number)
            if stored.reruns != turn.reruns:
                raise JournalRefused(f"turn {turn.number} of {self._task} has other re-runs")
            stored = with_results(stored, results)
            _check(stored)
            self._write(task, stored)
        await self._faults("record_results", Stage.AFTER)
        return stored

    async def record_rerun(self, turn: Turn, rerun: Rerun) -> Turn:
        """Append a re-run to a turn; see ports.Journal."""
        await self._faults("record_rerun", Stage.BEFORE)
        task, stored = self._turn(turn)
        known = {known.key for known in stored.reruns}
        if stored.results is None and rerun.key not in known:
            self._over_what_was_read(task, turn.number)
            stored = replace(stored, reruns=(*stored.reruns, rerun))
            self._write(task, stored)
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

    def _take_over(self, task: StoredTask, stored: Turn | End) -> None:
        """Found, and not created: only an owner goes on with it, and shuts the one before it out."""
        self._ours()
        if isinstance(stored, Turn) and not stored.complete and stored.epoch < self._epoch:
            task.versions[stored.number] += 1

    def _over_what_was_read(self, task: StoredTask, number: int) -> None:
        """A version that we saw may be written over unasked; of another one the owner is asked first.

        So an owner before us can write until its turn is fenced, as on an API server.
        """
        if self._seen.get(number) != task.versions[number]:
            self._ours()

    def _write(self, task: StoredTask, turn: Turn) -> None:
        task.records[turn.number] = turn
        task.versions[turn.number] += 1
        self._seen[turn.number] = task.versions[turn.number]

    def _turn(self, turn: Turn) -> tuple[StoredTask, Turn]:
        task = self._found()
        stored = task.records.get(turn.number)
        if not isinstance(stored, Turn) or _bare(stored) != _bare(turn):
            self._ours()
            raise JournalRefused(f"turn {turn.number} of {self._task} is not as it was")
        return task, stored


class _Changed(Exception):
    """The object is not as it was read."""


def _request(act: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """A request: other tasks may run before it arrives, and then it is done at once."""

    async def send() -> T:
        await asyncio.sleep(0)
        return act()

    return send


async def _become_owner(task: StoredTask, holder: str, now: datetime) -> Claim:
    """Raise the epoch, if the task is as it is now. The claim is without its records."""
    version, epoch = task.version, task.epoch + 1

    def take() -> Claim:
        if task.version != version:
            raise _Changed
        _take(task, holder, now)
        return _claim(task)

    try:
        return await step(Point.CLAIM_OWNER, _request(take), JournalAway)
    except JournalAway:
        if (task.holder, task.epoch) != (holder, epoch):
            raise
        return _claim(task)


def _take(task: StoredTask, holder: str, now: datetime) -> None:
    task.holder = holder
    task.epoch += 1
    if task.started is None:
        task.started = now.replace(microsecond=0)
        seconds = task.config.active_deadline_s
        task.deadline = None if seconds is None else task.started + timedelta(seconds=seconds)


def _read(task: StoredTask) -> tuple[tuple[Record, ...], dict[int, int]]:
    """The journal, and the versions of its open turns."""
    records = task.journal
    open_turns = [r.number for r in records if isinstance(r, Turn) and not r.complete]
    return records, {number: task.versions[number] for number in open_turns}


def _fence(task: StoredTask, number: int, version: int) -> int:
    """A new version of a turn, which no owner before this one can have seen."""
    if task.versions[number] != version:
        raise _Changed
    task.versions[number] += 1
    return task.versions[number]


async def _start(task: StoredTask, epoch: int) -> Record:
    """Create record 0, or take the one that is there."""
    start = Start(task.config, epoch, start_hash(task.config.to_json()))
    create = _request(lambda: task.records.setdefault(0, start))
    try:
        return await step(Point.CLAIM_START, create, JournalAway)
    except JournalAway:
        if 0 not in task.records:
            raise
        return task.records[0]


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
        lost_tokens=task.lost_tokens,
        sandbox=task.sandbox,
        records=(),
    )


def _summarise(task: StoredTask, summary: Summary) -> None:
    task.summary = summary
    task.summaries += 1
    task.lost_requests, task.lost_tokens = summary.lost_requests, summary.lost_tokens
    if task.asking is not None and not summary.awaits(task.asking):
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
