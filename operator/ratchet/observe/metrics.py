"""Prometheus metrics: counters over recorded events, none of them per task."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from ratchet.core import events as e
from ratchet.core.records import Outcome
from ratchet.core.state import State

TURNS = Counter("ratchet_turns", "Recorded turns.", ["verdict"])
CALLS = Counter("ratchet_tool_calls", "Recorded tool calls.", ["tool", "outcome"])
TOKENS = Counter("ratchet_model_tokens", "Tokens of recorded replies.", ["kind"])
ENDS = Counter("ratchet_tasks_ended", "Tasks ended.", ["outcome", "reason"])
FAILURES = Counter("ratchet_model_failures", "Model requests without a reply.", ["kind"])
UNKNOWN = Counter("ratchet_unknown_outcomes", "Calls whose outcome could not be known.")
RERUNS = Counter("ratchet_reruns", "Deliberate, recorded re-runs of calls.")
NETWORKS = Counter("ratchet_sandbox_networks", "What sandboxes found out.", ["enforcement"])
LOOPS = Gauge("ratchet_task_loops", "Tasks that this process runs now.")


def listener(event: e.Event, state: State) -> None:
    """Count an event."""
    match event:
        case e.TurnStored(turn):
            TURNS.labels(turn.reply.verdict.value).inc()
            TOKENS.labels("prompt").inc(turn.reply.usage.prompt)
            TOKENS.labels("cached").inc(turn.reply.usage.cached)
            TOKENS.labels("completion").inc(turn.reply.usage.completion)
        case e.ResultsStored(turn):
            tools = {call.index: call.tool for call in turn.reply.calls}
            for result in turn.results or ():
                CALLS.labels(tools.get(result.index, ""), result.outcome.value).inc()
                if result.outcome is Outcome.UNKNOWN:
                    UNKNOWN.inc()
        case e.NetworkLearned(verdict=verdict):
            NETWORKS.labels(verdict.enforcement.value).inc()
        case e.RerunStored():
            RERUNS.inc()
        case e.EndStored(end):
            ENDS.labels(end.outcome.value, str(end.reason)).inc()
        case e.AskFailed(failure=failure):
            FAILURES.labels(failure.kind.value).inc()
        case _:
            return
