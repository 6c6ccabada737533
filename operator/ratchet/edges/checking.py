"""Whether AgentTurns are a whole journal: numbers, owners, digests, links, results. Pure.

The operator asks before it goes on with a journal and before it closes one; `ratchet verify` asks
of what kubectl printed. Nobody repairs anything: what does not fit is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ratchet.api import names
from ratchet.core.keys import call_key
from ratchet.core.records import End, Record, Start, Turn, turn_hash
from ratchet.edges import taskstatus, wire
from ratchet.ports import TaskRef

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `text` is a sentence that names the record."""

    text: str
    newer: bool = False
    """Nothing is wrong, but only a later version of Ratchet can tell."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What can be read of a journal, in order of its numbers, and what is wrong with it."""

    records: tuple[Record, ...]
    faults: tuple[Fault, ...]

    @property
    def ended(self) -> bool:
        """Whether the journal is closed."""
        return bool(self.records) and isinstance(self.records[-1], End)


def read(task: TaskRef, found: Sequence[Object], below: int | None = None) -> tuple[Record, ...]:
    """The records of a journal in order. Raises Unreadable with the first thing that is wrong.

    `below`: the epoch that every record must have been written before. Raises NewerJournal before
    anything else where some record is of a later version.
    """
    checked = check(task, found, below)
    for fault in sorted(checked.faults, key=lambda fault: not fault.newer):
        raise wire.NewerJournal(fault.text) if fault.newer else wire.Unreadable(fault.text)
    return checked.records


def check(task: TaskRef, found: Sequence[Object], below: int | None = None) -> Checked:
    """All that is wrong with a journal; see `read`."""
    records: dict[int, Record] = {}
    faults: list[Fault] = []
    for item in sorted(found, key=number_of):
        try:
            record = wire.from_object(task, item)
        except wire.Unreadable as error:
            faults.append(Fault(str(error), isinstance(error, wire.NewerJournal)))
            continue
        if record.number in records:
            what = wire.named(item["metadata"]["name"], record.number)
            faults.append(Fault(f"{what} is there twice."))
        faults += [Fault(text) for text in _alone(task, item, record, below)]
        records[record.number] = record
    numbers = {number_of(item) for item in found}
    faults += [Fault(text) for text in _gaps(task, numbers)]
    faults += [Fault(text) for a, b in pairwise(records.values()) for text in linked(task, a, b)]
    return Checked(tuple(records.values()), tuple(faults))


def epoch_of(item: Object) -> int:
    """The newest epoch that an AgentTurn names."""
    return max(int(item["spec"]["epoch"]), int((item.get("status") or {}).get("epoch") or 0))


def last_known(task: Object) -> int:
    """The highest number of a record that must be there by what the status of its task says.

    -1 for none. Turns are counted when they are recorded, and one is asked for when those before
    it are.
    """
    turns = int(taskstatus.status(task).get("turns") or 0)
    asking = taskstatus.asking_of(task)
    if asking is not None:
        return max(turns, asking.turn - 1)
    return turns if turns or taskstatus.sandbox_of(task).ledger else -1


def missing(task: TaskRef, number: int, last: int | None = None) -> str:
    """The sentence that says of a record, or of all up to `last`, that it is not there."""
    name = names.turn_name(task.name, task.uid, number)
    upto = f", and all up to record {last}" if last is not None and last > number else ""
    return f"{wire.named(name, number)} is missing{upto}: somebody deleted it."


def linked(task: TaskRef, before: Record, record: Record) -> Iterator[str]:
    """What is wrong between two records that can be read; a gap between them is told elsewhere."""
    if isinstance(record, Start) or record.number != before.number + 1:
        return
    what = wire.named(names.turn_name(task.name, task.uid, record.number), record.number)
    if isinstance(before, End):
        yield f"{what} stands behind the end of the journal."
    elif isinstance(before, Turn) and not before.complete:
        yield f"{what} stands behind record {before.number}, which has no results."
    elif record.previous != (turn_hash(before) if isinstance(before, Turn) else before.hash):
        yield (
            f"{what} does not follow from record {before.number}: `previous` is not its digest,"
            " so one of the two is not what it was."
        )


def number_of(item: Object) -> int:
    """The number that an AgentTurn gives itself; -1 if it is none."""
    number = (item.get("spec") or {}).get("number")
    return number if isinstance(number, int) and number >= 0 else -1


def _alone(task: TaskRef, item: Object, record: Record, below: int | None) -> Iterator[str]:
    """What is wrong with a record that is what it was when it was written."""
    what = wire.named(names.turn_name(task.name, task.uid, record.number), record.number)
    epoch = epoch_of(item)
    if below is not None and epoch >= below:
        yield (
            f"{what} is of epoch {epoch}, and the task's status knew of none above {below - 1}:"
            " the status is older than the journal."
        )
    if isinstance(record, Turn) and record.results is not None:
        yield from (f"{what} {fault}." for fault in _results(task, record))


def _results(task: TaskRef, turn: Turn) -> Iterator[str]:
    """Why the results of a turn are not those of its calls, in words that follow its name."""
    asked = [call.index for call in turn.reply.calls] if turn.reply.verdict.runs else []
    got = [result.index for result in turn.results or ()]
    if got != asked:
        yield f"has results of the calls {got}, and its calls are {asked}"
        return
    for result in turn.results or ():
        keys = {rerun.key for rerun in turn.reruns if rerun.index == result.index}
        if result.key not in keys | {call_key(task.uid, turn.number, result.index)}:
            yield f"has a result of call {result.index} under the key {result.key}, which is not its"


def _gaps(task: TaskRef, numbers: set[int]) -> Iterator[str]:
    for before, number in pairwise(sorted(numbers | {-1})):
        if number > before + 1:
            yield missing(task, before + 1, number - 1)
