"""Records of a journal as AgentTurn objects, and back. Pure.

Written with only what is not the default, and read through the types of the API, which fill the
defaults in again: what is read equals what was written, string by string, since hashes cover it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from ratchet.api import names
from ratchet.api import turn as api
from ratchet.core.config import JOURNAL_VERSION, Config
from ratchet.core.keys import call_digest
from ratchet.core.records import (
    Call,
    End,
    Patch,
    PatchPart,
    Record,
    Reply,
    Rerun,
    Result,
    Start,
    Turn,
)
from ratchet.core.replies import Usage
from ratchet.edges import digests
from ratchet.ports import TaskRef

Object = Mapping[str, Any]
_Flat = TypeVar("_Flat", Usage, Result, Rerun, Patch, PatchPart)


ADVICE = (
    "Only the operator may create, change or delete AgentTurns. Nothing was overwritten:"
    " `ratchet verify` lists what is wrong. Create the task again under a new name."
)
"""What to do about a record that is not as the operator wrote it."""


class Unreadable(Exception):
    """An AgentTurn is not a record of this task that this version can read. The text says why."""


class NewerJournal(Unreadable):
    """The record was written by a later version of the operator, which has to go on with it."""


# --- writing -------------------------------------------------------------------------------------


def to_object(task: TaskRef, record: Record) -> dict[str, Any]:
    """The AgentTurn to create for a record; results and re-runs are no part of it."""
    kind = type(record).__name__
    spec: dict[str, Any] = {
        "taskRef": {"name": task.name, "uid": task.uid},
        "number": record.number,
        "kind": kind,
        "journalVersion": JOURNAL_VERSION,
        "epoch": record.epoch,
    }
    match record:
        case Start():
            spec["start"] = {"config": record.config.to_json()}
        case Turn():
            spec["previous"] = record.previous
            spec["requestDigest"] = record.request_digest
            spec["generation"] = record.generation
            spec |= {"ledger": record.ledger} if record.ledger else {}
            spec["reply"] = _reply(record.reply)
        case End():
            spec["previous"] = record.previous
            spec["end"] = _end(record)
    spec["digest"] = digests.of_spec(spec)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.TURN_KIND,
        "metadata": {
            "name": names.turn_name(task.name, task.uid, record.number),
            "namespace": task.namespace,
            "labels": names.turn_labels(task.uid, number=record.number, kind=kind),
            "ownerReferences": [owner_reference(task)],
        },
        "spec": spec,
    }


def owner_reference(task: TaskRef) -> dict[str, Any]:
    """The reference by which a record belongs to its task and goes with it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.TASK_KIND,
        "name": task.name,
        "uid": task.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def results_fields(
    record: str, reruns: tuple[Rerun, ...], results: tuple[Result, ...], committed_at: datetime
) -> dict[str, Any]:
    """What is written into a turn's status with its results. `record` is its `spec.digest`."""
    fields: dict[str, Any] = {
        "results": [_flat(result) for result in results],
        "committedAt": rfc3339(committed_at),
    }
    known = {"reruns": reruns_to_list(reruns)} if reruns else {}
    return fields | {"digest": digests.of_results(record, fields | known)}


def reruns_to_list(reruns: tuple[Rerun, ...]) -> list[dict[str, Any]]:
    """`status.reruns`."""
    return [_flat(rerun) for rerun in reruns]


def _reply(reply: Reply) -> dict[str, Any]:
    body = _flat(replace(reply, usage=Usage(), calls=()))
    if reply.usage != Usage():
        body["usage"] = _flat(reply.usage)
    if reply.calls:
        body["calls"] = [
            {
                "index": call.index,
                "id": call.id,
                "tool": call.tool,
                "arguments": call.arguments,
                "digest": call.digest,
            }
            for call in reply.calls
        ]
    return body


def _end(end: End) -> dict[str, Any]:
    body = {
        "outcome": end.outcome.value,
        "reason": end.reason,
        "message": end.message,
        "summary": end.summary,
        "result": end.result,
    }
    body = {name: value for name, value in body.items() if value}
    return body | ({"patch": _patch(end.patch)} if end.patch else {})


def _patch(patch: Patch) -> dict[str, Any]:
    body = _flat(replace(patch, parts=()))
    return body | ({"parts": [_flat(part) for part in patch.parts]} if patch.parts else {})


def _flat(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default, with the names of the API."""
    pairs = ((field, getattr(value, field.name)) for field in fields(value))
    return {
        to_camel(field.name): getattr(found, "value", found)
        for field, found in pairs
        if found != _default(field)
    }


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


# --- reading -------------------------------------------------------------------------------------


def named(name: str, number: object) -> str:
    """How a sentence about a record begins."""
    return f"AgentTurn {name} (record {number})"


def from_object(task: TaskRef, found: Object) -> Record:
    """The record in an AgentTurn. Raises Unreadable if it is none of this task, or none at all."""
    metadata, spec = found.get("metadata") or {}, found.get("spec") or {}
    what = named(metadata.get("name", ""), spec.get("number", "?"))
    _check_version(what, spec)
    try:
        parsed = api.AgentTurn.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"{what} cannot be read: {where}: {first['msg']}.") from error
    fault = _foreign(task, metadata, parsed) or _edited(found, parsed)
    if fault:
        raise Unreadable(f"{what} {fault}.")
    return _record(what, parsed)


def _check_version(what: str, spec: Object) -> None:
    version = spec.get("journalVersion")
    if isinstance(version, int) and version > JOURNAL_VERSION:
        raise NewerJournal(
            f"{what} has journalVersion {version}, this version of Ratchet knows up to"
            f" {JOURNAL_VERSION}: run a newer operator."
        )


def _foreign(task: TaskRef, metadata: Object, parsed: api.AgentTurn) -> str:
    """Why an AgentTurn is not a record of this task, in words that follow its name."""
    spec = parsed.spec
    if metadata.get("deletionTimestamp"):
        return "is being deleted"
    if spec.task_ref.uid != task.uid:
        return f"is of another task (uid {spec.task_ref.uid}, not {task.uid})"
    if spec.task_ref.name != task.name:
        return f"is of a task {spec.task_ref.name}, not {task.name}"
    expected = names.turn_name(task.name, task.uid, spec.number)
    if metadata.get("name") != expected:
        return f"has the number of {expected}"
    if (spec.kind is api.TurnKind.START) != (spec.number == 0):
        return f"is of kind {spec.kind}: record 0 is the Start, and no other"
    label = (metadata.get("labels") or {}).get(names.LABEL_TASK_UID, "")
    if label != task.uid:
        return f"has {label or 'nothing'} as label {names.LABEL_TASK_UID}, not {task.uid}"
    return _not_owned(task, metadata.get("ownerReferences") or ())


def _not_owned(task: TaskRef, owners: Sequence[Object]) -> str:
    controllers = [str(owner.get("uid")) for owner in owners if owner.get("controller")]
    if controllers == [task.uid]:
        return ""
    others = " and ".join(controllers)
    return f"has {others or 'nobody'} as its owner, not its task (uid {task.uid})"


def _edited(found: Object, parsed: api.AgentTurn) -> str:
    """Why an AgentTurn is not as it was written, in words that follow its name."""
    spec, status = found["spec"], found.get("status") or {}
    if parsed.spec.digest is None:
        return "has no digest: somebody edited it, or made it"
    if parsed.spec.digest != digests.of_spec(spec):
        return "was edited: spec.digest is of something else"
    for call in parsed.spec.reply.calls if parsed.spec.reply else ():
        if call.digest != call_digest(call.tool, call.arguments):
            return f"has a call {call.index} whose digest is of something else"
    if parsed.status.results is None:
        gone = parsed.status.digest is not None
        return "was edited: its results are gone, and their digest is there" if gone else ""
    if parsed.status.digest != digests.of_results(parsed.spec.digest, status):
        return "was edited: status.digest is not that of its results"
    return ""


def _record(what: str, parsed: api.AgentTurn) -> Record:
    spec, status = parsed.spec, parsed.status
    digest = status.digest or spec.digest or ""
    match spec.kind, spec.start, spec.reply, spec.end:
        case api.TurnKind.START, api.Start() as start, None, None:
            return Start(_config(what, start), spec.epoch, digest)
        case api.TurnKind.TURN, None, api.Reply() as reply, None:
            return Turn(
                number=spec.number,
                epoch=spec.epoch,
                generation=spec.generation,
                ledger=spec.ledger,
                previous=spec.previous or "",
                request_digest=spec.request_digest or "",
                reply=_reply_from(reply),
                reruns=tuple(_from(Rerun, rerun) for rerun in status.reruns or ()),
                results=None
                if status.results is None
                else tuple(_from(Result, result) for result in status.results),
                hash=digest,
            )
        case api.TurnKind.END, None, None, api.End() as end:
            return _end_from(spec, end)
        case _:
            text = f"{what} has not just the part that its kind ({spec.kind}) names."
            raise Unreadable(text)


def _config(what: str, start: api.Start) -> Config:
    try:
        return Config.from_json(start.config)
    except (ValueError, TypeError, KeyError) as error:
        text = f"{what} holds a configuration that cannot be read: {error!r}."
        raise Unreadable(text) from error


def _reply_from(reply: api.Reply) -> Reply:
    return Reply(
        verdict=reply.verdict,
        text=reply.text,
        note=reply.note,
        reasoning=reply.reasoning,
        calls=tuple(Call(c.index, c.id, c.tool, c.arguments) for c in reply.calls),
        finish_reason=reply.finish_reason,
        usage=_from(Usage, reply.usage),
        model=reply.model,
        endpoint=reply.endpoint,
        attempt=reply.attempt,
        raw=reply.raw,
    )


def _end_from(spec: api.AgentTurnSpec, end: api.End) -> End:
    return End(
        number=spec.number,
        epoch=spec.epoch,
        previous=spec.previous or "",
        outcome=end.outcome,
        reason=end.reason,
        message=end.message,
        summary=end.summary,
        result=end.result,
        patch=_patch_from(end.patch) if end.patch else None,
        hash=spec.digest or "",
    )


def _patch_from(parsed: api.Patch) -> Patch:
    parts = tuple(_from(PatchPart, part) for part in parsed.parts)
    return replace(_from(Patch, parsed), parts=parts)


def _from(kind: type[_Flat], parsed: Any) -> _Flat:
    """A dataclass whose fields have the names and the types of the API's own."""
    values = {field.name: getattr(parsed, field.name) for field in fields(kind)}
    return kind(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, api.PatchEncoding) else value


def rfc3339(moment: datetime) -> str:
    """A time as Kubernetes writes it: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
