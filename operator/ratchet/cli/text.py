"""An audit in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ratchet.cli.audit import Audit
from ratchet.core.records import End, Outcome, Record, Start, Turn, turn_hash

DIGEST_SHOWN = 12
"""Characters of a digest that a line shows."""


def told(audit: Audit, verbose: bool) -> Iterator[str]:
    """The lines about one task: records if asked for, a sentence, and what is wrong."""
    if verbose:
        yield from map(_record, audit.records)
    yield f"{audit.task} (uid {audit.task.uid}): {_judged(audit)} {_counted(audit)}"
    for fault in audit.faults:
        yield f"  - {fault.text}"


def _judged(audit: Audit) -> str:
    if not audit.faults:
        return "valid."
    if not audit.broken:
        return "not judged, a later version of Ratchet wrote it."
    return f"BROKEN, {_many(len(audit.faults), 'fault')}."


def _counted(audit: Audit) -> str:
    records = audit.records
    turns = [record for record in records if isinstance(record, Turn)]
    calls = sum(len(turn.reply.calls) for turn in turns if turn.reply.verdict.runs)
    outcomes = [result.outcome for turn in turns for result in turn.results or ()]
    parts = [
        _many(len(turns), "turn"),
        _many(calls, "call"),
        _many(outcomes.count(Outcome.UNKNOWN), "unknown outcome"),
        _many(sum(len(turn.reruns) for turn in turns), "re-run"),
    ]
    unseen = _many(audit.unseen, "ConfigMap")
    patch = f"; its patch is in {unseen} that were not given" if audit.unseen else ""
    return f"{', '.join(parts)}; {_end(records)}{patch}."


def _end(records: tuple[Record, ...]) -> str:
    last = records[-1] if records else None
    if isinstance(last, End):
        return f"ended {last.outcome} ({last.reason})"
    return "not ended"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _record(record: Record) -> str:
    digest = turn_hash(record) if isinstance(record, Turn) else record.hash
    head = f"{record.number:>4}  {type(record).__name__:<5}  epoch {record.epoch:<3}"
    return f"{head}  {digest[:DIGEST_SHOWN]}  {_content(record)}".rstrip()


def _content(record: Record) -> str:
    match record:
        case Start():
            return f"{len(record.config.tools)} tools, model {record.config.model.model}"
        case End():
            return f"{record.outcome}: {record.reason}"
        case Turn():
            return f"{record.reply.verdict} {', '.join(_calls(record))}".rstrip()


def _calls(turn: Turn) -> Iterator[str]:
    for call in turn.reply.calls:
        result = turn.result(call.index)
        again = sum(rerun.index == call.index for rerun in turn.reruns)
        how = result.outcome.value if result else ("open" if turn.reply.verdict.runs else "not run")
        yield f"{call.tool} {how}" + (f" ({_many(again, 're-run')})" if again else "")
