"""Becoming the owner of a task on the API server (ports.Journals).

The order matters. What the task runs with is found out first, since a task that cannot begin is
not claimed. Then the epoch is raised, by compare-and-set. Only then is the journal read: from that
moment an owner before us can still add a record, but none that we would not find under its name.
Last, a turn that has no results yet gets a new version, so that only we can write them.

A journal that is not whole, or that the status does not fit, is not gone on with: the task gets a
condition that names the record, and nothing of the journal is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from ratchet.api import names
from ratchet.core.conditions import Phase, Reason
from ratchet.core.config import Config
from ratchet.core.records import End, Record, Start, Turn
from ratchet.core.status import conditions_of_failure, conditions_of_wait
from ratchet.edges import checking, kube, taskstatus, wire
from ratchet.edges.answers import FAILURES, Failure, Meaning, away, find, meaning
from ratchet.edges.journal import STRICT, TRIES, KubeJournal, Seen, turn_patch, turns_of, utc_now
from ratchet.edges.kube import ApiError, ApiUnreachable
from ratchet.edges.resolving import RuleProblems, Trouble, read_config, unchecked
from ratchet.failpoints import Point, step
from ratchet.ports import Claim, JournalAway, JournalRefused, TaskRef

Object = Mapping[str, Any]


class KubeJournals:
    """Where tasks are claimed (ports.Journals). One object for all tasks.

    `now` dates what the journals write by themselves: conditions and results. `rule_problems` looks
    at the rules of a task that begins.
    """

    def __init__(
        self,
        api: kube.Api,
        now: Callable[[], datetime] = utc_now,
        rule_problems: RuleProblems = unchecked,
    ) -> None:
        self._api = api
        self._now = now
        self._rule_problems = rule_problems

    async def claim(
        self, task: TaskRef, holder: str, now: datetime
    ) -> tuple[Claim, KubeJournal] | None:
        """Become the owner; see ports.Journals.

        Also None, with conditions that say why, if the journal holds what is no record of the
        task, or if record 0 is refused. Raises JournalAway, and JournalRefused if the API server
        refuses the claim itself.
        """
        for _ in range(TRIES):
            current = await find(self._api, kube.task(task.namespace, task.name))
            if current is None or _nothing_to_do(task, current):
                return None
            try:
                return await self._claim(task, current, holder, now)
            except _Changed:
                continue
            except wire.NewerJournal as newer:
                trouble = Trouble(Phase.WAITING, Reason.JOURNAL_CONFLICT, str(newer))
            except wire.Unreadable as fault:
                text = f"{fault} {wire.ADVICE}"
                trouble = Trouble(Phase.FAILED, Reason.JOURNAL_CONFLICT, text)
            except _CannotBegin as reason:
                trouble = reason.trouble
            await self._tell(task, trouble, now, holder, known=taskstatus.epoch(current))
            return None
        raise JournalAway(f"task {task} was changed {TRIES} times while it was being claimed")

    async def _claim(
        self, task: TaskRef, current: Object, holder: str, now: datetime
    ) -> tuple[Claim, KubeJournal]:
        before = await self._before(task, current)
        config = await self._config(current, before.start)
        fields = _owner_fields(current, config, before, holder, now)
        claimed = await self._become_owner(task, current, fields)
        epoch = taskstatus.epoch(claimed)
        records: tuple[Record, ...] = ()
        seen: dict[int, Seen] = {}
        if epoch > 1:
            records, seen = await step(
                Point.CLAIM_READ, lambda: self._records(task, claimed), JournalAway
            )
        records, seen = await self._fence(task, records, seen, epoch)
        if not records:
            records = (await self._start(task, Start(config, epoch)),)
        claim = _claim(task, claimed, records)
        return claim, KubeJournal(self._api, task, claimed, seen, self._now)

    async def _before(self, task: TaskRef, current: Object) -> _Before:
        """What the journal says of the time before this claim.

        Records of a task whose status knows of no owner: the status was lost. What its sandbox
        and its owners did beside the journal is lost with it, so nothing is gone on with; only an
        end that is recorded is shown.
        """
        if taskstatus.epoch(current) > 0:
            stored = await find(self._api, _record_path(task, 0))
            if stored is None and checking.last_known(current) >= 0:
                raise wire.Unreadable(checking.missing(task, 0) + " The status knows of it.")
            start = None if stored is None else _start_from(task, stored)
            return _Before(start, taskstatus.epoch(current))
        found = await turns_of(self._api, task)
        if not found:
            return _Before(None, 0)
        records = checking.read(task, found)
        first, last = records[0], records[-1]
        assert isinstance(first, Start)  # or it would not have passed
        if not isinstance(last, End):
            name = names.turn_name(task.name, task.uid, last.number)
            raise wire.Unreadable(
                f"The status of the task knows of no owner, and {wire.named(name, last.number)} is"
                " there: the status was lost, or restored without what it said."
            )
        began = min(str(item["metadata"]["creationTimestamp"]) for item in found)
        return _Before(first, max(map(checking.epoch_of, found)), datetime.fromisoformat(began))

    async def _config(self, current: Object, start: Start | None) -> Config:
        """What the task runs with: as record 0 has it, or found out now."""
        if start is not None:
            return start.config
        found = await read_config(self._api, current, self._rule_problems)
        if isinstance(found, Trouble):
            raise _CannotBegin(found)
        return found

    async def _become_owner(
        self, task: TaskRef, current: Object, fields: taskstatus.Fields
    ) -> Object:
        patch = [*taskstatus.is_unchanged(current), *taskstatus.changes(current, fields)]
        path = kube.task(task.namespace, task.name, "status")
        try:
            return await step(
                Point.CLAIM_OWNER,
                lambda: self._api.request("PATCH", path, patch, content_type=kube.JSON_PATCH),
                ApiUnreachable,
            )
        except FAILURES as failure:
            match meaning(failure):
                case Meaning.LOST_RACE | Meaning.GONE:
                    raise _Changed from failure
                case Meaning.UNKNOWN:
                    found = await find(self._api, kube.task(task.namespace, task.name))
                    if found and taskstatus.status(found).get("owner") == fields["owner"]:
                        return found
                case Meaning.REFUSED:
                    raise JournalRefused(f"the claim of {task} was refused: {failure}") from failure
                case _:
                    pass
            raise away(failure) from failure

    async def _records(
        self, task: TaskRef, claimed: Object
    ) -> tuple[tuple[Record, ...], dict[int, Seen]]:
        """The journal in order, and the versions of the turns that are not complete."""
        found = await turns_of(self._api, task)
        records = checking.read(task, found, below=taskstatus.epoch(claimed))
        known = checking.last_known(claimed)
        if len(records) <= known:
            raise wire.Unreadable(
                checking.missing(task, len(records), known) + " The status knows of it."
            )
        still_open = {r.number for r in records if isinstance(r, Turn) and not r.complete}
        versions = {item["spec"]["number"]: Seen.of(item) for item in found}
        return records, {number: versions[number] for number in still_open}

    async def _fence(
        self, task: TaskRef, records: tuple[Record, ...], seen: dict[int, Seen], epoch: int
    ) -> tuple[tuple[Record, ...], dict[int, Seen]]:
        """Make a new version of the open turn, which an earlier owner cannot have seen.

        Without this a process that was stopped before its write of results, and goes on after we
        have run the calls, could say of them what is no longer true.
        """
        if epoch == 1:
            return records, seen
        taken: dict[int, Record] = {}
        for number, version in list(seen.items()):
            try:
                found = await self._fence_turn(task, number, version, epoch)
            except FAILURES as failure:
                if meaning(failure) is Meaning.LOST_RACE:
                    raise _Changed from failure  # an earlier owner was quicker: look again
                raise away(failure) from failure
            taken[number] = wire.from_object(task, found)
            seen[number] = Seen.of(found)
        return tuple(taken.get(record.number, record) for record in records), seen

    async def _fence_turn(self, task: TaskRef, number: int, version: Seen, epoch: int) -> Object:
        patch = turn_patch(version, {"epoch": epoch})
        path = f"{_record_path(task, number)}/status"
        return await step(
            Point.CLAIM_FENCE,
            lambda: self._api.request(
                "PATCH", path, patch, params=STRICT, content_type=kube.JSON_PATCH
            ),
            ApiUnreachable,
        )

    async def _start(self, task: TaskRef, start: Start) -> Start:
        """Create record 0, or take the one that is there."""
        body = wire.to_object(task, start)
        try:
            created = await step(
                Point.CLAIM_START,
                lambda: self._api.request("POST", kube.turn(task.namespace), body, params=STRICT),
                ApiUnreachable,
            )
            return _start_from(task, created)
        except FAILURES as failure:
            if meaning(failure) in (Meaning.EXISTS, Meaning.UNKNOWN):
                stored = await find(self._api, _record_path(task, 0))
                if stored is not None:
                    return _start_from(task, stored)
            if meaning(failure) is Meaning.GONE:
                raise _Changed from failure
            if meaning(failure) is Meaning.REFUSED:
                raise _CannotBegin(_refused(failure)) from failure
            raise away(failure) from failure

    async def _tell(
        self, task: TaskRef, trouble: Trouble, now: datetime, holder: str, known: int
    ) -> None:
        """Say in the status why the task is not begun; written only where it is news.

        If the task changes meanwhile nothing is written: it will be looked at again. Nor is
        anything written of what another owner runs whose epoch came after the `known` one: the
        trouble may be that we read before and after its claim.
        """
        path = kube.task(task.namespace, task.name)
        current = await find(self._api, path)
        if current is None or _nothing_to_do(task, current):
            return
        owner = taskstatus.status(current).get("owner") or {}
        if taskstatus.epoch(current) > known and owner.get("holder") != holder:
            return
        conditions_of = (
            conditions_of_failure if trouble.phase is Phase.FAILED else conditions_of_wait
        )
        conditions = conditions_of(trouble.reason, trouble.message)
        fields = taskstatus.outlook_fields(
            current, trouble.phase, trouble.reason, trouble.message, conditions, now
        )
        patch = taskstatus.changes(current, {**fields, "doing": None})
        if not patch:
            return
        patch = [*taskstatus.is_unchanged(current), *patch]
        try:
            await self._api.request("PATCH", f"{path}/status", patch, content_type=kube.JSON_PATCH)
        except FAILURES as failure:
            if meaning(failure) not in (Meaning.LOST_RACE, Meaning.GONE):
                raise away(failure) from failure


@dataclass(frozen=True, slots=True)
class _Before:
    """What came before a claim: record 0 if there is one, and the newest epoch."""

    start: Start | None
    epoch: int
    started: datetime | None = None
    """When the task began, where the status does not say so any more."""


class _Changed(Exception):
    """The task is not as it was read: look again."""


class _CannotBegin(Exception):
    """The task cannot be resolved."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


def _refused(failure: Failure) -> Trouble:
    """What to say of a record 0 that the API server does not take."""
    if isinstance(failure, ApiError) and failure.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        text = f"The task is too large to be recorded; put its files into ConfigMaps: {failure}"
        return Trouble(Phase.FAILED, Reason.CONFIG_INVALID, text)
    text = f"The first record was refused; are the CRDs those of this operator? {failure}"
    return Trouble(Phase.WAITING, Reason.CONFIG_INVALID, text)


def _nothing_to_do(task: TaskRef, current: Object) -> bool:
    return (
        taskstatus.uid(current) != task.uid
        or taskstatus.is_finished(current)
        or "deletionTimestamp" in current["metadata"]
    )


def _record_path(task: TaskRef, number: int) -> str:
    return kube.turn(task.namespace, names.turn_name(task.name, task.uid, number))


def _start_from(task: TaskRef, found: Object) -> Start:
    record = wire.from_object(task, found)
    if not isinstance(record, Start):
        raise wire.Unreadable(f"AgentTurn {found['metadata']['name']} is not of kind Start.")
    return record


def _owner_fields(
    current: Object, config: Config, before: _Before, holder: str, now: datetime
) -> taskstatus.Fields:
    now = before.started or now
    fields: taskstatus.Fields = {
        "owner": {"holder": holder, "epoch": before.epoch + 1},
        "endpoint": config.model.known_as,
    }
    if taskstatus.time_of(current, "startTime") is None:
        fields["startTime"] = wire.rfc3339(now)
        if config.active_deadline_s is not None:
            seconds = timedelta(seconds=config.active_deadline_s)
            fields["deadline"] = wire.rfc3339(now + seconds)
    return fields


def _claim(task: TaskRef, claimed: Object, records: tuple[Record, ...]) -> Claim:
    started = taskstatus.time_of(claimed, "startTime")
    assert started is not None  # written by the claim, if not before
    lost, lost_tokens = taskstatus.lost_of(claimed)
    return Claim(
        task=task,
        epoch=taskstatus.epoch(claimed),
        started=started,
        deadline=taskstatus.time_of(claimed, "deadline"),
        cancel=bool((claimed.get("spec") or {}).get("cancel")),
        asking=taskstatus.asking_of(claimed),
        lost_requests=lost,
        lost_tokens=lost_tokens,
        sandbox=taskstatus.sandbox_of(claimed),
        records=records,
    )
