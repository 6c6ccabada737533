"""The journal of one claimed task on the API server (ports.Journal).

Every write says in itself when it may happen: a record is created if absent, results are written
over the version of the turn that was read, the status only while uid and epoch are ours. After a
refusal or a silence the object is read, and what is found decides. The table is in
`docs/architecture.md`, section 4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ratchet.api import names
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.records import End, Record, Rerun, Result, Start, Turn, with_results
from ratchet.core.status import Summary
from ratchet.edges import checking, kube, taskstatus, wire
from ratchet.edges.answers import FAILURES, Failure, Meaning, away, find, meaning
from ratchet.ports import JournalRefused, OwnershipLost, TaskRef

TRIES = 4
"""Times that a write is tried on what was read anew, before the loop is told to wait."""
RACES = 32
"""Times that somebody's edit of a task may come in between a look at it and the write of its status.
More than a person makes, and no reason to say that the API server is away."""

STRICT = {"fieldValidation": "Strict"}
"""A record that holds what the CRD does not know is refused. It would else be stored without it,
and its hash would be wrong from then on."""

Object = Mapping[str, Any]
FieldsOf = Callable[[Object], taskstatus.Fields]


@dataclass(frozen=True, slots=True)
class Seen:
    """An AgentTurn as it was read last: enough to write over exactly that version."""

    version: str
    has_status: bool
    digest: str

    @classmethod
    def of(cls, found: Object) -> Seen:
        digest = found["spec"].get("digest", "")
        return cls(found["metadata"]["resourceVersion"], "status" in found, digest)


def utc_now() -> datetime:
    """The current time."""
    return datetime.now(UTC)


class KubeJournal:
    """The records of one task, and the facts in its status, under one claim (ports.Journal).

    `current` is the task as the claim left it, `seen` the turns whose results may still come.
    """

    def __init__(
        self,
        api: kube.Api,
        task: TaskRef,
        current: Object,
        seen: Mapping[int, Seen],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._api = api
        self._task = task
        self._epoch = taskstatus.epoch(current)
        self._current: Object | None = current
        self._seen = dict(seen)
        self._now = now
        self._status_lock = asyncio.Lock()

    # --- records ---------------------------------------------------------------------------------

    async def append(self, record: Turn | End) -> tuple[Turn | End, bool]:
        """Create a record; see ports.Journal.

        A journal is read and checked as a whole before it is closed: a task does not end well on
        records that somebody has changed while it ran.
        """
        if isinstance(record, End):
            await self._check_whole(record)
        body = wire.to_object(self._task, record)
        found: Object
        created = True
        try:
            found = await self._api.request(
                "POST", kube.turn(self._task.namespace), body, params=STRICT
            )
        except FAILURES as failure:
            found = await self._find_created(failure, record.number)
            created = False
        try:
            stored = self._read(found)
            if isinstance(stored, Start) or stored.previous != record.previous:
                text = f"{_what(found)} does not follow from record {record.number - 1}."
                raise JournalRefused(f"{text} {wire.ADVICE}")
        except JournalRefused:
            await self._task_if_ours()  # a later owner may write what we cannot read
            raise
        if not created:
            stored = await self._take_over(stored)
        return stored, _bare(stored) == _bare(record)

    async def _take_over(self, stored: Turn | End) -> Turn | End:
        """What was found under the name of a record of ours, made safe to go on with.

        It was read before we ask who owns the task: a claim that comes later makes another version
        of an open turn, so ours is not written over. An owner before us that created the turn knows
        its version too, and gets the same: it could else record of a call that it was not run,
        while we run it.
        """
        await self._task_if_ours()
        if isinstance(stored, End) or stored.complete or stored.epoch == self._epoch:
            return stored
        return await self._write_turn(
            stored, lambda _turn, _seen: {"epoch": self._epoch}, lambda turn: turn.complete
        )

    async def _check_whole(self, end: End) -> None:
        """Raise JournalRefused unless the journal is what this end is to be the last record of."""
        found = await turns_of(self._api, self._task)
        try:
            records = checking.read(self._task, found)
            if len(records) < end.number:
                raise wire.Unreadable(checking.missing(self._task, len(records), end.number - 1))
            for fault in checking.linked(self._task, records[-1], end):
                raise wire.Unreadable(fault)
        except wire.Unreadable as error:
            await self._task_if_ours()
            raise _refused(error) from error

    async def _find_created(self, failure: Failure, number: int) -> Object:
        """What stands under the name of a record whose creation failed."""
        name = names.turn_name(self._task.name, self._task.uid, number)
        match meaning(failure):
            case Meaning.EXISTS | Meaning.UNKNOWN | Meaning.LOST_RACE:  # the last: of a quota
                found = await find(self._api, kube.turn(self._task.namespace, name))
                if found is not None:
                    return found
            case Meaning.GONE:
                await self._task_if_ours()
            case Meaning.REFUSED:
                raise JournalRefused(f"AgentTurn {name} was refused: {failure}") from failure
            case Meaning.LATER:
                pass
        raise away(failure) from failure

    async def record_results(self, turn: Turn, results: tuple[Result, ...]) -> Turn:
        """Write the results of a turn once; see ports.Journal."""
        ordered = with_results(turn, results).results or ()

        def fields(stored: Turn, seen: Seen) -> dict[str, Any]:
            return wire.results_fields(seen.digest, stored.reruns, ordered, self._now())

        def unless(stored: Turn) -> bool:
            if stored.results is None and stored.reruns != turn.reruns:
                name = names.turn_name(self._task.name, self._task.uid, turn.number)
                raise JournalRefused(
                    f"{wire.named(name, turn.number)} has re-runs that this process does not know"
                    " of: its results would not be those of the calls that ran."
                )
            return stored.results is not None

        return await self._write_turn(turn, fields, unless)

    async def record_rerun(self, turn: Turn, rerun: Rerun) -> Turn:
        """Append a re-run to a turn; see ports.Journal."""

        def unless(stored: Turn) -> bool:
            return stored.results is not None or rerun.key in {r.key for r in stored.reruns}

        def fields(stored: Turn, _: Seen) -> dict[str, Any]:
            return {"reruns": wire.reruns_to_list((*stored.reruns, rerun))}

        return await self._write_turn(turn, fields, unless)

    async def _write_turn(
        self,
        turn: Turn,
        fields: Callable[[Turn, Seen], dict[str, Any]],
        unless: Callable[[Turn], bool],
    ) -> Turn:
        """Set fields in a turn's status over the version that was seen.

        `unless` says of a turn read anew whether it is to be taken as it is.
        """
        name = names.turn_name(self._task.name, self._task.uid, turn.number)
        failure: Failure | None = None
        for _ in range(TRIES):
            seen = self._seen.pop(turn.number, None)
            if seen is None:
                turn, seen = await self._reread(turn, name)
                if unless(turn):
                    return turn
                # Read after the version: a claim that comes later makes another version.
                await self._task_if_ours()
            try:
                patch = turn_patch(seen, fields(turn, seen))
                path = kube.turn(self._task.namespace, name, "status")
                return self._turn(await self._patch(path, patch, STRICT))
            except FAILURES as error:
                failure = error
                _give_up_early(f"AgentTurn {name}", error)
                await self._task_if_ours()
        assert failure is not None
        raise away(failure) from failure

    async def _reread(self, turn: Turn, name: str) -> tuple[Turn, Seen]:
        found = await find(self._api, kube.turn(self._task.namespace, name))
        if found is None:
            await self._task_if_ours()
            text = checking.missing(self._task, turn.number)
            raise JournalRefused(f"{text} {wire.ADVICE}")
        stored = self._turn(found)
        if _bare(stored) != _bare(turn):
            raise JournalRefused(f"{_what(found)} is not the record that it was. {wire.ADVICE}")
        return stored, self._seen.pop(turn.number, None) or Seen.of(found)

    def _turn(self, found: Object) -> Turn:
        stored = self._read(found)
        if not isinstance(stored, Turn):
            raise JournalRefused(f"{_what(found)} is not of kind Turn. {wire.ADVICE}")
        return stored

    def _read(self, found: Object) -> Record:
        """The record in an AgentTurn; remembers its version while something can be added to it."""
        try:
            stored = wire.from_object(self._task, found)
        except wire.Unreadable as error:
            raise _refused(error) from error
        if isinstance(stored, Turn) and not stored.complete:
            self._seen[stored.number] = Seen.of(found)
        return stored

    # --- status ----------------------------------------------------------------------------------

    async def mark_asking(self, asking: Asking, summary: Summary) -> None:
        """Say that a request is being sent; see ports.Journal."""

        def fields(current: Object) -> taskstatus.Fields:
            marked = taskstatus.asking_fields(asking, self._epoch)
            return self._summary(current, summary) | marked

        await self._write_status(fields)

    async def summarise(self, summary: Summary) -> None:
        """Write the ordinary status; see ports.Journal."""
        await self._write_status(lambda current: self._summary(current, summary))

    async def set_sandbox(self, sandbox: SandboxRef) -> None:
        """Name the task's sandbox, over exactly the task as it was read; see ports.Journal."""
        await self._write_status(lambda _: taskstatus.sandbox_fields(sandbox))

    def _summary(self, current: Object, summary: Summary) -> taskstatus.Fields:
        return taskstatus.summary_fields(self._task, current, summary, self._now())

    async def _write_status(self, fields: FieldsOf) -> None:
        """Make the status hold `fields`, while the task is ours."""
        path = kube.task(self._task.namespace, self._task.name, "status")
        failure: Failure | None = None
        failed = races = 0
        async with self._status_lock:
            while failed < TRIES and races < RACES:
                current = self._current or await self._task_if_ours()
                patch = taskstatus.changes(current, fields(current))
                if not patch:
                    self._current = current
                    return
                tests = taskstatus.is_ours(current)
                self._current = None  # unknown until there is an answer
                try:
                    self._current = await self._patch(path, [*tests, *patch])
                    return
                except FAILURES as error:
                    failure = error
                    _give_up_early(f"the status of {self._task}", error)
                    lost = meaning(error) is Meaning.LOST_RACE
                    races, failed = races + lost, failed + (not lost)
        assert failure is not None
        raise away(failure) from failure

    async def _task_if_ours(self) -> Object:
        """The task as it is. Raises OwnershipLost if it is not ours (any more)."""
        current = await find(self._api, kube.task(self._task.namespace, self._task.name))
        if current is None or taskstatus.uid(current) != self._task.uid:
            raise OwnershipLost(f"task {self._task} (uid {self._task.uid}) no longer exists")
        newest = taskstatus.epoch(current)
        if newest != self._epoch:
            holder = (taskstatus.status(current).get("owner") or {}).get("holder", "nobody")
            text = f"task {self._task} is owned by {holder} (epoch {newest}, ours is {self._epoch})"
            raise OwnershipLost(text)
        return current

    async def _patch(
        self, path: str, patch: taskstatus.Patch, params: kube.Params | None = None
    ) -> dict[str, Any]:
        return await self._api.request(
            "PATCH", path, patch, params=params, content_type=kube.JSON_PATCH
        )


async def turns_of(api: kube.Api, task: TaskRef) -> list[Object]:
    """The AgentTurns that carry a task's label, in no order. Raises JournalAway."""
    selector = names.task_selector(task.uid, component=names.COMPONENT_JOURNAL)
    try:
        return [item async for item in kube.pages(api, kube.turn(task.namespace), selector)]
    except FAILURES as failure:
        raise away(failure) from failure


def _refused(error: wire.Unreadable) -> JournalRefused | OwnershipLost:
    """What a loop is told of a journal that is not (any more) what it wrote."""
    if isinstance(error, wire.NewerJournal):
        return OwnershipLost(str(error))  # the next claim will wait for a newer operator
    return JournalRefused(f"{error} {wire.ADVICE}")


def _what(found: Object) -> str:
    return wire.named(found["metadata"]["name"], found["spec"]["number"])


def turn_patch(seen: Seen, fields: Mapping[str, Any]) -> taskstatus.Patch:
    """Set fields in the status of a turn, over exactly the version that was seen."""
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": seen.version},
        *([] if seen.has_status else [{"op": "add", "path": "/status", "value": {}}]),
        *({"op": "add", "path": f"/status/{k}", "value": v} for k, v in fields.items()),
    ]


def _bare(record: Turn | End) -> Turn | End:
    """The part of a record that is written at its creation."""
    return replace(record, reruns=(), results=None) if isinstance(record, Turn) else record


def _give_up_early(what: str, failure: Failure) -> None:
    """Raise what says so if reading again and writing again is no use."""
    match meaning(failure):
        case Meaning.REFUSED:
            raise JournalRefused(f"{what} could not be written: {failure}") from failure
        case Meaning.LATER:
            raise away(failure) from failure
        case _:
            pass
