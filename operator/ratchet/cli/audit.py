"""All that can be said of journals offline. Pure.

More than an operator asks before it goes on: also whether each reply answers the request that the
journal gives, and whether the task's status, if it is there, says the same as the journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ratchet.api import names
from ratchet.build.patchparts import content
from ratchet.cli.inputs import CONFIG_MAP, Object, UnreadableInput
from ratchet.core.conditions import Reason
from ratchet.core.records import End, Patch, Record, Start, Turn
from ratchet.core.transcript import History, asked_as
from ratchet.edges import checking, patches, taskstatus, wire
from ratchet.edges.checking import Fault
from ratchet.ports import TaskRef

ConfigMaps = Mapping[tuple[str, str], Object]
"""By namespace and name."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found of one task."""

    task: TaskRef
    records: tuple[Record, ...]
    faults: tuple[Fault, ...]
    unseen: int = 0
    """ConfigMaps with parts of the patch that were not among the input."""

    @property
    def broken(self) -> bool:
        """Whether something is wrong, and not just too new to be judged."""
        return any(not fault.newer for fault in self.faults)


def audits(found: Sequence[Object]) -> list[Audit]:
    """One audit for each task that the objects speak of. Raises UnreadableInput if they do of none."""
    groups: dict[str, list[Object]] = {}
    maps = {_place(item): item for item in found if item["kind"] == CONFIG_MAP}
    tasks = {taskstatus.uid(item): item for item in found if item["kind"] == names.TASK_KIND}
    for uid in tasks:
        groups[uid] = []
    for item in found:
        if item["kind"] == names.TURN_KIND:
            groups.setdefault(_task_uid(item), []).append(item)
    if not groups:
        raise UnreadableInput("there is no AgentTurn in the input: is the uid of the task right?")
    return [_audit(uid, turns, tasks.get(uid), maps) for uid, turns in groups.items()]


def _task_uid(turn: Object) -> str:
    """Which task's journal a record is shown as part of: a person may have changed its spec."""
    labels = turn["metadata"].get("labels", {})
    return str(labels.get(names.LABEL_TASK_UID) or _named_task(turn).get("uid"))


def _named_task(turn: Object) -> Object:
    named = turn["spec"].get("taskRef")
    return named if isinstance(named, dict) else {}


def _audit(uid: str, turns: Sequence[Object], task: Object | None, maps: ConfigMaps) -> Audit:
    ref = _task_ref(uid, turns, task)
    checked = checking.check(ref, turns)
    faults = checked.faults
    if not faults:
        faults += tuple(Fault(text) for text in _requests(ref, checked.records))
        faults += tuple(Fault(text) for text in _patch(ref, checked.records, maps))
    if task is not None and not any(fault.newer for fault in faults):
        faults += tuple(Fault(text) for text in _status(ref, task, turns, checked))
    unseen = _unseen(checked.records, ref.namespace, maps)
    return Audit(ref, checked.records, faults, unseen)


def _place(item: Object) -> tuple[str, str]:
    return str(item["metadata"].get("namespace", "")), str(item["metadata"]["name"])


def _task_ref(uid: str, turns: Sequence[Object], task: Object | None) -> TaskRef:
    if task is not None:
        name, namespace = task["metadata"]["name"], task["metadata"].get("namespace", "")
    else:
        mine = [turn for turn in turns if _named_task(turn).get("uid") == uid] or turns
        name, namespace = _named_task(mine[0]).get("name"), mine[0]["metadata"].get("namespace", "")
    ref = TaskRef(str(namespace), str(name), uid)
    try:
        names.turn_name(ref.name, ref.uid, 0)
    except ValueError as error:
        raise UnreadableInput(f"the records of task {ref} cannot be told apart: {error}") from error
    return ref


def _what(task: TaskRef, number: int) -> str:
    return wire.named(names.turn_name(task.name, task.uid, number), number)


def _requests(task: TaskRef, records: Sequence[Record]) -> Iterator[str]:
    """Replies to requests that the journal does not give, to any of the endpoints."""
    start = records[0] if records else None
    if not isinstance(start, Start):
        return
    config = start.config
    told = {model.known_as: History.of(config, model) for model in config.endpoints}
    for turn in records:
        if not isinstance(turn, Turn):
            continue
        asked = turn.reply.endpoint if turn.reply.endpoint in told else config.model.known_as
        model = next(model for model in config.endpoints if model.known_as == asked)
        if asked_as(config, told[asked], turn, model) is None:
            yield (
                f"{_what(task, turn.number)} answers another request than the records before it"
                " give: requestDigest is not of that."
            )
            return
        if turn.complete:
            told = {name: history.after(turn) for name, history in told.items()}


def _patch(task: TaskRef, records: Sequence[Record], maps: ConfigMaps) -> Iterator[str]:
    """What is wrong with the patch; of one in ConfigMaps only if any of them is there."""
    last = records[-1] if records else None
    if not isinstance(last, End) or last.patch is None:
        return
    patch = last.patch
    if patch.parts and sum(part.size for part in patch.parts) != patch.size:
        yield f"{_what(task, last.number)} has a patch whose parts are not of its size."
    elif patch.parts and _unseen(records, task.namespace, maps) == len(patch.parts):
        return
    elif patch.parts or patch.inline:
        try:
            patches.checked(patch, _bytes(patch, task.namespace, maps))
        except patches.PatchBroken as broken:
            yield f"The patch of {_what(task, last.number)} cannot be had: {broken}."


def _bytes(patch: Patch, namespace: str, maps: ConfigMaps) -> bytes:
    if not patch.parts:
        return patches.inline_bytes(patch)
    found = ((part, maps.get((namespace, part.name))) for part in patch.parts)
    return b"".join(patches.piece(part, content(one) if one else None) for part, one in found)


def _unseen(records: Sequence[Record], namespace: str, maps: ConfigMaps) -> int:
    """ConfigMaps with parts of the patch that are not among the input."""
    last = records[-1] if records else None
    parts = last.patch.parts if isinstance(last, End) and last.patch else ()
    return sum((namespace, part.name) not in maps for part in parts)


def _status(
    ref: TaskRef, task: Object, turns: Sequence[Object], checked: checking.Checked
) -> Iterator[str]:
    """What the status of a task says, and its journal does not."""
    records, status = checked.records, taskstatus.status(task)
    known = checking.last_known(task)
    there = max(map(checking.number_of, turns), default=-1)
    if there < known:
        yield checking.missing(ref, there + 1, known) + " The status knows of it."
    newest = max((record.epoch for record in records), default=0)
    if newest > taskstatus.epoch(task):
        yield (
            f"The status of task {ref} knows of no epoch above {taskstatus.epoch(task)}, and a"
            f" record was written by epoch {newest}: the status was lost, or is an old one."
        )
    if not records or not taskstatus.is_finished(task):
        return
    if status.get("reason") == Reason.JOURNAL_CONFLICT:
        return  # it ended because of the journal
    last = records[-1]
    if not isinstance(last, End):
        yield f"The status says that the task has ended, and {_what(ref, last.number)} is its last."
    elif last.outcome != status.get("phase"):
        yield (
            f"{_what(ref, last.number)} says {last.outcome}, and the status {status.get('phase')}."
        )
