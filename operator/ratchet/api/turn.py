"""AgentTurn: one record of a task's journal, written by the operator only."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api import names
from ratchet.api.base import (
    AGE,
    Column,
    Count,
    Digest,
    Kind,
    Model,
    Name,
    Positive,
    Resource,
    Rule,
    Time,
    Uid,
    Word,
    chars,
    listed,
)
from ratchet.core.records import EndOutcome, Outcome, Verdict

CALLS_MAX = 32
ARGUMENTS_MAX = 64 * 1024
RESULTS_MAX = 160 * 1024
TEXT_MAX = 64 * 1024
CONFIG_MAX = 1_310_720
"""Characters of the resolved configuration as JSON text: goal, context, files and instructions
have up to 232 KiB, which escapes can make several times as long; etcd takes 1.5 MiB."""
PATCH_MAX = 136_536
"""Characters of a stored patch: 100 KiB, which base64 makes a third longer."""
PARTS_MAX = 8
"""ConfigMaps of one patch: 5 MiB in parts of 700 KiB."""
RERUNS_MAX = 128

CallKey = Annotated[str, chars(128, least=1)]
CallIndex = Annotated[int, Field(ge=0, le=CALLS_MAX - 1)]


class TurnKind(StrEnum):
    """What a record is."""

    START = "Start"
    TURN = "Turn"
    END = "End"


class PatchEncoding(StrEnum):
    """How a patch is stored."""

    TEXT = "text"
    BASE64 = "base64"


class TaskRef(Model):
    """The task that a record belongs to."""

    name: Name
    """Name of the AgentTask, in the same namespace. Required."""
    uid: Uid
    """Uid of the AgentTask; a later task of the same name has another. Required."""


class Call(Model):
    """A tool call that the model asked for."""

    index: CallIndex
    """Place of the call in its turn, from 0. Required."""
    id: Annotated[str, chars(64, least=1)]
    """Id of the call as the model sees it, made by the operator. Required."""
    tool: Annotated[str, chars(TEXT_MAX)]
    """Name of the tool as the model gave it. Required."""
    arguments: Annotated[str, chars(ARGUMENTS_MAX)]
    """The arguments as JSON text; those of a turn have at most 64 KiB together. Required."""
    digest: Digest
    """SHA-256 of tool and arguments; the sandbox refuses the key of the call with any other.
    Required."""


class Usage(Model):
    """Tokens that the reply took."""

    prompt: Count = 0
    """Tokens of the request, those from the cache included."""
    cached: Count = 0
    """Tokens of the request that the model server had in its cache."""
    completion: Count = 0
    """Tokens of the reply, those of reasoning included."""
    reasoning: Count = 0
    """Tokens of the reply that were reasoning."""


class Reply(Model):
    """What the model answered."""

    verdict: Verdict
    """What the reply turned out to be: Calls, Finish, Text, Malformed, Truncated, Empty,
    UnknownTool, TooLarge or Refused. Required."""
    note: Annotated[str, chars(TEXT_MAX)] = ""
    """What was wrong with the reply, as the model is told it. Default: nothing."""
    text: Annotated[str, chars(TEXT_MAX)] = ""
    """The text of the reply. Default: none."""
    reasoning: Annotated[str, chars(TEXT_MAX)] = ""
    """The model's reasoning, where the server gives it. Default: none."""
    finish_reason: Annotated[str, chars(4096)] = ""
    """Why the model stopped, in the server's word, such as stop, length or tool_calls."""
    calls: Annotated[tuple[Call, ...], listed("atomic", most=CALLS_MAX)] = ()
    """The tool calls that the reply asks for, in order, at most 32."""
    usage: Usage = Usage()
    """Tokens that the reply took."""
    model: Annotated[str, chars(4096)] = ""
    """The model, as the server named it in its reply."""
    endpoint: Annotated[str, chars(320)] = ""
    """Name of the ModelEndpoint that was asked, as namespace/name where it is of another
    namespace."""
    attempt: Positive = 1
    """Which try of the request was answered, from 1."""
    raw: Annotated[str, chars(TEXT_MAX)] = ""
    """The reply as it came, where text and calls cannot express it; cut to fit."""


class Start(Model):
    """What the task runs with: the content of record 0."""

    config: Annotated[str, chars(CONFIG_MAX, least=2)]
    """The resolved configuration (task, profile, endpoint and class together) as JSON text. A
    later edit of any of them does not change it. Required."""


class PatchPart(Model):
    """A part of a large patch."""

    name: Name
    """Name of the ConfigMap that holds it, in the same namespace: binaryData.patch. Required."""
    size: Positive
    """Bytes of the part. Required."""


class Patch(Model):
    """What the task changed in its workspace, as a git patch."""

    base: Annotated[str, chars(64)] = ""
    """Git commit that the patch is to be applied to."""
    upstream_commit: Annotated[str, chars(64)] = ""
    """Git commit that was cloned; the same as base unless spec.files were put on top of it. Empty
    where the workspace is not from a clone."""
    sha256: Digest
    """SHA-256 of the patch's bytes, in hex. Required."""
    size: Count
    """Size of the patch in bytes. Required."""
    inline: Annotated[str, chars(PATCH_MAX)] = ""
    """The patch itself; empty where it has more than 100 KiB."""
    encoding: PatchEncoding = PatchEncoding.TEXT
    """How inline holds the patch: text, or base64 where it is not UTF-8. Default: text."""
    parts: Annotated[tuple[PatchPart, ...], listed("atomic", most=PARTS_MAX)] = ()
    """Where a patch of more than 100 KiB is, in order; the parts together are the patch."""


class End(Model):
    """How the task ended."""

    outcome: EndOutcome
    """Succeeded, Failed or Cancelled. Required."""
    reason: Word
    """Why, in one CamelCase word of the catalogue. Required."""
    message: Annotated[str, chars(TEXT_MAX)] = ""
    """Why, in a sentence."""
    summary: Annotated[str, chars(TEXT_MAX)] = ""
    """What the model said about its work."""
    result: Annotated[str, chars(TEXT_MAX)] = ""
    """The result argument of finish as JSON text; empty where there is none."""
    patch: Patch | None = None
    """What the task changed in its workspace; absent where nothing could be taken out of it."""


class AgentTurnSpec(Model):
    """The record. Immutable as a whole."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="self == oldSelf",
            message=(
                "an AgentTurn is immutable: it is a record of what happened; to run the work again"
                " create a new AgentTask"
            ),
            reason="FieldValueForbidden",
        ),
        Rule(
            rule=(
                "(self.kind == 'Start') == has(self.start)"
                " && (self.kind == 'Turn') == has(self.reply)"
                " && (self.kind == 'End') == has(self.end)"
            ),
            message=(
                "a record has the part that its kind names and no other: start, reply or end;"
                " AgentTurns are made by the operator only"
            ),
        ),
        Rule(
            rule=(
                "(self.kind == 'Start') == (self.number == 0)"
                " && (self.kind == 'Start') != has(self.previous)"
            ),
            message=(
                "record 0 is of kind Start, every other record names the digest of the previous"
                " one; AgentTurns are made by the operator only"
            ),
        ),
    )

    task_ref: TaskRef
    """The task that the record belongs to. Required. Immutable."""
    number: Count
    """Place of the record in the journal, from 0; turns have 1, 2 and so on. Required.
    Immutable."""
    kind: TurnKind
    """Start (record 0), Turn (a reply and its calls) or End (the last). Required. Immutable."""
    journal_version: Positive
    """Version of the format of the journal. Required. Immutable."""
    epoch: Count
    """Epoch of the operator process that wrote the record. Required. Immutable."""
    generation: Count = 0
    """The sandbox that the calls of the turn are meant for: its generation; 0 where there is none.
    Immutable."""
    ledger: Annotated[str, chars(64)] = ""
    """The sandbox that the calls of the turn are meant for: id of its ledger; empty where there is
    none. Immutable."""
    previous: Digest | None = None
    """Digest of the record before: its status.digest, or its spec.digest where it has no results;
    absent in record 0. Immutable."""
    request_digest: Digest | None = None
    """SHA-256 of the model request that the reply answers, in hex; in turns only. Immutable."""
    reply: Reply | None = None
    """What the model answered; in records of kind Turn only. Immutable."""
    start: Start | None = None
    """What the task runs with; in records of kind Start only. Immutable."""
    end: End | None = None
    """How the task ended; in records of kind End only. Immutable."""
    digest: Digest | None = None
    """SHA-256, in hex, of everything else in the spec as canonical JSON: an edit of the record
    shows. Immutable."""


class Result(Model):
    """How one call ended."""

    index: CallIndex
    """Place of the call in its turn, from 0."""
    key: CallKey
    """Key under which the call ran: <task uid>/<turn>/<index>, for re-runs with /r<k> behind."""
    outcome: Outcome
    """How the call ended: Ok, Failed, Killed, TimedOut, StillRunning, Denied, NotRun, Unknown or
    Cancelled. StillRunning: its command goes on. Unknown: it may or may not have happened."""
    content: Annotated[str, chars(RESULTS_MAX)] = ""
    """What the model is told; the results of a turn have at most 160 KiB together."""
    exit_code: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = None
    """Exit code of the command, where there was one."""
    truncated: bool = False
    """Whether content lacks a part of the output."""
    spill: Annotated[str, chars(4096)] = ""
    """Path in the workspace of the file with the whole output, where content lacks a part."""
    duration_ms: Count = 0
    """Time that the call took, in milliseconds."""
    not_utf8: bool = False
    """Whether the output held bytes that are not UTF-8, which content shows as replacements."""


class Rerun(Model):
    """A deliberate second run of a call, recorded before it starts."""

    index: CallIndex
    """Place of the call in its turn, from 0."""
    key: CallKey
    """Key of the second run: the key of the call with /r<k> behind."""
    reason: Annotated[str, chars(4096)]
    """Why the call is run again."""
    generation: Count = 0
    """The first sandbox generation that the second run may happen in."""


class AgentTurnStatus(Model):
    """What became of the calls. Written by the operator only."""

    results: Annotated[tuple[Result, ...], listed("atomic", most=CALLS_MAX)] | None = None
    """How the calls ended, in order. Written once: immutable when it is there."""
    reruns: Annotated[tuple[Rerun, ...], listed("atomic", most=RERUNS_MAX)] | None = None
    """Deliberate second runs. Entries are added, never changed or removed."""
    committed_at: Time | None = None
    """When the results were recorded. Written once: immutable when it is there."""
    digest: Digest | None = None
    """SHA-256, in hex, of spec.digest, results, reruns and committedAt as canonical JSON. Written
    once, with the results: immutable when it is there."""
    epoch: Count | None = None
    """Epoch of the newest owner that took the task over while this turn had no results yet. Writing
    it makes a new version of the turn, so that no earlier owner can write to it any more."""


def _write_once(name: str) -> Rule:
    # At the root of the object: a rule further inside is not evaluated when the whole status goes.
    old, new = f"oldSelf.status.{name}", f"self.status.{name}"
    return Rule(
        rule=(
            f"!has(oldSelf.status) || !has({old})"
            f" || (has(self.status) && has({new}) && {new} == {old})"
        ),
        message=(
            f"status.{name} is immutable once it is written: it is a record of what happened; to"
            " run the work again create a new AgentTask"
        ),
        reason="FieldValueForbidden",
    )


class AgentTurn(Resource):
    """AgentTurn is one record of a task's journal: what the model said, what ran, how it ended.
    The operator writes it, nobody changes it."""

    KIND: ClassVar[Kind] = Kind(
        plural=names.TURN_PLURAL,
        short_names=("aturn",),
        selectable=(".spec.taskRef.uid",),
        columns=(
            Column(name="TASK", path=".spec.taskRef.name", description="The task."),
            Column(
                name="N",
                path=".spec.number",
                description="Place of the record in the journal.",
                type="integer",
            ),
            Column(name="KIND", path=".spec.kind", description="Start, Turn or End."),
            Column(name="VERDICT", path=".spec.reply.verdict", description="What the reply was."),
            Column(
                name="EPOCH",
                path=".spec.epoch",
                description="Epoch of the process that wrote it.",
                type="integer",
            ),
            AGE,
        ),
    )
    RULES: ClassVar[tuple[Rule, ...]] = (
        _write_once("results"),
        _write_once("committedAt"),
        _write_once("digest"),
        Rule(
            rule=(
                "!has(oldSelf.status) || !has(oldSelf.status.reruns)"
                " || (has(self.status) && has(self.status.reruns)"
                " && oldSelf.status.reruns.all(o, self.status.reruns.exists(n, n == o)))"
            ),
            message=(
                "an entry of status.reruns is immutable: entries are added, never changed or"
                " removed; AgentTurns are written by the operator only"
            ),
            reason="FieldValueForbidden",
        ),
    )

    spec: AgentTurnSpec
    """The record. Immutable as a whole."""
    status: AgentTurnStatus = AgentTurnStatus()
    """What became of the calls. Written by the operator only."""
