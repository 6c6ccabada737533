"""The records of a journal and what makes them a chain.

A journal is the truth about a task: Start (record 0), one Turn for each model
reply, and End. A turn is written in two steps that never change afterwards:
the reply first, which is the record of intent for all its calls, and later the
results of these calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from ratchet.core.config import JOURNAL_VERSION, Config
from ratchet.core.keys import call_digest, call_key, canonical, sha256
from ratchet.core.replies import Usage
from ratchet.core.sizes import cut_to_store, share_out, stored_size

MAX_RESULTS = 160 * 1024
"""Bytes that the results of a turn take where they are stored."""
MIN_RESULTS = 32 * 1024
"""Bytes that they may take however large the reply is."""
MAX_RECORD = 240 * 1024
"""Bytes of reply and results together: an AgentTurn stays under 256 KiB."""


class Verdict(StrEnum):
    """What a model reply turned out to be."""

    CALLS = "Calls"
    FINISH = "Finish"
    TEXT = "Text"
    MALFORMED = "Malformed"
    TRUNCATED = "Truncated"
    EMPTY = "Empty"
    UNKNOWN_TOOL = "UnknownTool"
    TOO_LARGE = "TooLarge"
    REFUSED = "Refused"

    @property
    def runs(self) -> bool:
        """Whether the calls of such a reply are run."""
        return self in (Verdict.CALLS, Verdict.FINISH)


class Outcome(StrEnum):
    """How a call ended, as recorded in its turn."""

    OK = "Ok"
    FAILED = "Failed"
    KILLED = "Killed"
    TIMED_OUT = "TimedOut"
    STILL_RUNNING = "StillRunning"
    DENIED = "Denied"
    NOT_RUN = "NotRun"
    UNKNOWN = "Unknown"
    CANCELLED = "Cancelled"

    @property
    def lets_others_run(self) -> bool:
        """Whether the later calls of the same turn still make sense after this one."""
        return self in (Outcome.OK, Outcome.FAILED, Outcome.STILL_RUNNING)


class EndOutcome(StrEnum):
    """How a task ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of a turn. `arguments` is canonical JSON text of an object."""

    index: int
    id: str
    tool: str
    arguments: str

    @property
    def digest(self) -> str:
        return call_digest(self.tool, self.arguments)


@dataclass(frozen=True, slots=True)
class Reply:
    """A model reply with its verdict; `note` says what was wrong with it, for the model to read."""

    verdict: Verdict
    text: str = ""
    note: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    finish_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    endpoint: str = ""
    attempt: int = 1
    raw: str = ""
    """What could not be expressed in `text` and `calls`: the model's own words, cut to fit."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one call ended and what the model is told about it."""

    index: int
    key: str
    outcome: Outcome
    content: str
    exit_code: int | None = None
    truncated: bool = False
    spill: str = ""
    duration_ms: int = 0
    not_utf8: bool = False


@dataclass(frozen=True, slots=True)
class Rerun:
    """A deliberate second run, recorded before it starts. `generation`: the first it may run in."""

    index: int
    key: str
    reason: str
    generation: int


@dataclass(frozen=True, slots=True)
class PatchPart:
    """A part of a large patch: the ConfigMap that holds it, and its bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Patch:
    """The task's work as a git patch: inline, or in parts where it is large.

    `sha256` is of the whole. One of which neither is there was too large to be kept.
    """

    base: str
    sha256: str
    size: int
    inline: str = ""
    encoding: str = "text"
    """`text`, or `base64` where the patch is not UTF-8."""
    upstream_commit: str = ""
    """The commit that was cloned; empty where the workspace is not from a clone."""
    parts: tuple[PatchPart, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """Record 0: the configuration that the task runs with. `hash` is as that of a Turn."""

    config: Config
    epoch: int
    hash: str = ""

    @property
    def number(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Turn:
    """A reply and, once they are recorded, the results of its calls.

    `hash` is the digest of the record as its journal has it, results included once they are
    there: what the next record must carry as `previous`. It is no part of what is recorded.
    """

    number: int
    epoch: int
    generation: int
    ledger: str
    previous: str
    request_digest: str
    reply: Reply
    reruns: tuple[Rerun, ...] = ()
    results: tuple[Result, ...] | None = None
    hash: str = field(default="", compare=False)

    @property
    def complete(self) -> bool:
        """Whether nothing more will be added: results are there, or there was nothing to run."""
        return self.results is not None or not self.reply.verdict.runs

    def result(self, index: int) -> Result | None:
        return next((r for r in self.results or () if r.index == index), None)

    def current_key(self, task_uid: str, index: int) -> str:
        """The key under which a call is to be run now: of its newest recorded re-run, if any."""
        keys = [rerun.key for rerun in self.reruns if rerun.index == index]
        return keys[-1] if keys else call_key(task_uid, self.number, index)


@dataclass(frozen=True, slots=True)
class End:
    """The last record: how the task ended, with what result. `hash` is as that of a Turn."""

    number: int
    epoch: int
    previous: str
    outcome: EndOutcome
    reason: str
    message: str
    summary: str = ""
    result: str = ""
    """JSON text of the `result` argument of `finish`; empty where there was none."""
    patch: Patch | None = None
    hash: str = field(default="", compare=False)


Record = Start | Turn | End


def start_hash(config_json: str) -> str:
    """The first link of a chain whose journal names no digests: covers the configuration."""
    return sha256(canonical({"journalVersion": JOURNAL_VERSION, "config": config_json}))


def turn_hash(turn: Turn) -> str:
    """The link that the record after a complete turn must carry as `previous`.

    The turn's digest as its journal has it; where that names none (one in memory), a digest of
    the content, without the epoch.
    """
    return turn.hash or sha256(
        canonical(
            {
                "number": turn.number,
                "previous": turn.previous,
                "requestDigest": turn.request_digest,
                "reply": turn.reply,
                "reruns": turn.reruns,
                "results": turn.results,
            }
        )
    )


def with_results(turn: Turn, results: tuple[Result, ...]) -> Turn:
    """The turn with its results, in the order of its calls, each cut to its share of the room.

    It has no `hash`: its journal has not seen it yet.
    """
    ordered = sorted(results, key=lambda r: r.index)
    if sum(len(result.content) for result in ordered) * 6 > MIN_RESULTS:  # 6: the longest escape
        ordered = _fitted(ordered, _room_for_results(turn.reply))
    return replace(turn, results=tuple(ordered), hash="")


def _room_for_results(reply: Reply) -> int:
    texts = (reply.text, reply.note, reply.reasoning, reply.raw)
    taken = sum(map(stored_size, (*texts, *(call.arguments for call in reply.calls))))
    return max(MIN_RESULTS, min(MAX_RESULTS, MAX_RECORD - taken))


def _fitted(results: list[Result], room: int) -> list[Result]:
    """The results within the room, which the large ones share; what fits already stays as it is."""
    sizes = [stored_size(result.content) for result in results]
    if sum(sizes) <= room:
        return results
    return [
        result if size <= share else _shortened(result, share)
        for result, size, share in zip(results, sizes, share_out(sizes, room), strict=True)
    ]


def _shortened(result: Result, share: int) -> Result:
    named = 0 < len(result.spill) <= 256
    hint = f"the whole output is in {result.spill}" if named else ""
    return replace(result, content=cut_to_store(result.content, share, hint), truncated=True)
