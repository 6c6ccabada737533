"""Records of a journal as AgentTurn objects, and back. Pure.

Written with only what is not the default, and read through the types of the API, which fill the
defaults in again: what is read equals what was written, string by string, since hashes cover it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    Record,
    Reply,
    Rerun,
    Result,
    Start,
    Turn,
    start_hash,
)
from ratchet.core.replies import Usage
from ratchet.ports import TaskRef

Object = Mapping[str, Any]
_Flat = TypeVar("_Flat", Usage, Result, Rerun, Patch)


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


def results_to_list(results: tuple[Result, ...]) -> list[dict[str, Any]]:
    """`status.results`."""
    return [_flat(result) for result in results]


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
    return body | ({"patch": _flat(end.patch)} if end.patch else {})


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


def from_object(task: TaskRef, found: Object) -> Record:
    """The record in an AgentTurn. Raises Unreadable if it is none of this task, or none at all."""
    metadata = found.get("metadata") or {}
    name = metadata.get("name", "")
    _check_version(name, found)
    try:
        parsed = api.AgentTurn.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"AgentTurn {name} cannot be read: {where}: {first['msg']}.") from error
    fault = _foreign(task, metadata, parsed)
    if fault:
        raise Unreadable(f"AgentTurn {name} {fault}.")
    return _record(name, parsed)


def _check_version(name: str, found: Object) -> None:
    version = (found.get("spec") or {}).get("journalVersion")
    if isinstance(version, int) and version > JOURNAL_VERSION:
        raise NewerJournal(
            f"AgentTurn {name} has journalVersion {version}, this operator knows up to"
            f" {JOURNAL_VERSION}: run a newer operator."
        )


def _foreign(task: TaskRef, metadata: Object, parsed: api.AgentTurn) -> str:
    """Why an AgentTurn is not a record of this task, in words that follow its name."""
    spec = parsed.spec
    if metadata.get("deletionTimestamp"):
        return "is being deleted"
    if spec.task_ref.uid != task.uid:
        return f"is of another task (uid {spec.task_ref.uid}, not {task.uid})"
    owners = metadata.get("ownerReferences") or ()
    if not any(o.get("controller") and o.get("uid") == task.uid for o in owners):
        return "has no owner reference to its task, so somebody else than the operator made it"
    expected = names.turn_name(task.name, task.uid, spec.number)
    if metadata.get("name") != expected:
        return f"has the number of {expected}"
    for call in spec.reply.calls if spec.reply else ():
        if call.digest != call_digest(call.tool, call.arguments):
            return f"has a call {call.index} whose digest is of something else"
    return ""


def _record(name: str, parsed: api.AgentTurn) -> Record:
    spec, status = parsed.spec, parsed.status
    match spec.kind, spec.start, spec.reply, spec.end:
        case api.TurnKind.START, api.Start() as start, None, None:
            return _start(name, spec.epoch, start)
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
            )
        case api.TurnKind.END, None, None, api.End() as end:
            return _end_from(spec, end)
        case _:
            text = f"AgentTurn {name} has not just the part that its kind ({spec.kind}) names."
            raise Unreadable(text)


def _start(name: str, epoch: int, start: api.Start) -> Start:
    try:
        config = Config.from_json(start.config)
    except (ValueError, TypeError, KeyError) as error:
        text = f"AgentTurn {name} holds a configuration that cannot be read: {error!r}."
        raise Unreadable(text) from error
    return Start(config=config, epoch=epoch, hash=start_hash(start.config))


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
        patch=_from(Patch, end.patch) if end.patch else None,
    )


def _from(kind: type[_Flat], parsed: Any) -> _Flat:
    """A dataclass whose fields have the names and the types of the API's own."""
    values = {field.name: getattr(parsed, field.name) for field in fields(kind)}
    return kind(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, api.PatchEncoding) else value


def rfc3339(moment: datetime) -> str:
    """A time as Kubernetes writes it: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
