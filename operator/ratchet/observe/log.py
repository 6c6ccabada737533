"""The operator's log: one line of JSON an event, derived from what was recorded."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from ratchet.core import events as e
from ratchet.core.replies import FailureKind
from ratchet.core.state import State
from ratchet.ports import TaskRef

_log = logging.getLogger("ratchet.task")


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `event`, and what was given as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(level: str) -> None:
    """Log to standard error as JSON. kopf's chatter about single objects starts at WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("kopf.objects", "kopf._core.engines.peering", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def listener(task: TaskRef) -> Any:
    """Log what a task's records say: never prompts, arguments or results."""

    def tell(event: e.Event, state: State) -> None:
        fields = _fields(event, state)
        if fields is not None and not _repeats(event, state):
            where = {"task": str(task), "uid": task.uid, "epoch": state.epoch}
            _log.info(type(event).__name__, extra={"fields": {**where, **fields}})

    return tell


def _repeats(event: e.Event, state: State) -> bool:
    """Whether this was told already: a sandbox that still waits for the same thing, an endpoint that
    fails as it did before. So an outage is a line for each task and endpoint, and not for each try."""
    if isinstance(event, e.AskFailed) and event.failure.kind is FailureKind.CONTEXT:
        return False  # each one has another request as its answer
    if isinstance(event, e.AskFailed | e.EndpointAway):
        return state.stop is None and not state.route.news
    return isinstance(event, e.SandboxWaited) and state.sandbox.since != event.at


def _fields(event: e.Event, state: State) -> dict[str, Any] | None:
    match event:
        case e.TurnStored(turn):
            reply = turn.reply
            tools = [call.tool for call in reply.calls]
            return {"turn": turn.number, "verdict": reply.verdict.value, "tools": tools}
        case e.ResultsStored(turn):
            return {"turn": turn.number, "outcomes": [r.outcome.value for r in turn.results or ()]}
        case e.EndStored(end):
            return {"outcome": end.outcome.value, "reason": end.reason, "message": end.message}
        case e.AskFailed(turn=turn, attempt=attempt, failure=failure):
            what = {"kind": failure.kind.value, "status": failure.status}
            return {"turn": turn, "attempt": attempt, **what, "message": failure.message}
        case e.EndpointAway(index, message, until):
            name = state.config.endpoints[index].known_as
            return {"endpoint": name, "message": message, "until": until.isoformat()}
        case e.RerunStored(turn):
            return {"turn": turn.number, "reruns": [rerun.key for rerun in turn.reruns]}
        case e.SandboxVanished(generation, message, reason):
            return {"generation": generation, "reason": reason.value, "message": message}
        case e.SandboxWaited(reason, message):
            return {"reason": reason.value, "message": message}
        case e.SandboxAnswered(ref):
            return {"generation": ref.generation, "ledger": ref.ledger, "pod": ref.pod}
        case e.SandboxUnreachable(message=message) | e.JournalBroken(message):
            return {"message": message}
        case e.NetworkLearned(generation, verdict):
            found = {"enforcement": verdict.enforcement.value, "message": verdict.message}
            return {"generation": generation, **found}
        case e.JournalFailed() | e.OwnerLost() | e.GenerationRaised() | e.LedgerBound():
            return {}
        case _:
            return None
