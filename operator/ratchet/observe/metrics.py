"""Prometheus metrics: counters over recorded events, and what endpoints do. None of them per task."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from ratchet.core import events as e
from ratchet.core.breaker import BreakerState
from ratchet.core.facts import Answered, EndpointRef
from ratchet.core.records import Outcome
from ratchet.core.replies import ModelFailure
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

_ENDPOINT = ["namespace", "endpoint"]
ENDPOINT_RUNNING = Gauge("ratchet_endpoint_running", "Requests under way.", _ENDPOINT)
ENDPOINT_QUEUED = Gauge("ratchet_endpoint_queued", "Requests that wait for a place.", _ENDPOINT)
ENDPOINT_BREAKER = Gauge(
    "ratchet_endpoint_breaker_state", "0 is closed, 1 open, 2 half open.", _ENDPOINT
)
ENDPOINT_REQUESTS = Counter(
    "ratchet_endpoint_requests",
    "Requests that ended: Answered, Withdrawn, or the kind of the failure.",
    [*_ENDPOINT, "outcome"],
)
ENDPOINT_LATENCY = Histogram(
    "ratchet_endpoint_latency_seconds",
    "Seconds of answered requests, without the wait for a place.",
    _ENDPOINT,
    buckets=(0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1800),
)
ENDPOINT_CACHED = Counter(
    "ratchet_endpoint_cached_tokens", "Prompt tokens that the server had in its cache.", _ENDPOINT
)
ENDPOINT_PROMPT = Counter("ratchet_endpoint_prompt_tokens", "Tokens of prompts.", _ENDPOINT)

_BREAKER = {BreakerState.CLOSED: 0, BreakerState.OPEN: 1, BreakerState.HALF_OPEN: 2}


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


def endpoint_counted(endpoint: EndpointRef, running: int, queued: int) -> None:
    """How many requests run at an endpoint and wait for it."""
    ENDPOINT_RUNNING.labels(endpoint.namespace, endpoint.name).set(running)
    ENDPOINT_QUEUED.labels(endpoint.namespace, endpoint.name).set(queued)


def endpoint_breaker(endpoint: EndpointRef, state: BreakerState) -> None:
    """Who gets through to an endpoint."""
    ENDPOINT_BREAKER.labels(endpoint.namespace, endpoint.name).set(_BREAKER[state])


def endpoint_ended(endpoint: EndpointRef, how: Answered | ModelFailure | None) -> None:
    """A request to an endpoint ended; None: it was withdrawn."""
    where = endpoint.namespace, endpoint.name
    match how:
        case Answered(latency_s, usage):
            outcome = "Answered"
            ENDPOINT_LATENCY.labels(*where).observe(latency_s)
            ENDPOINT_CACHED.labels(*where).inc(usage.cached)
            ENDPOINT_PROMPT.labels(*where).inc(usage.prompt)
        case ModelFailure():
            outcome = how.kind.value
        case None:
            outcome = "Withdrawn"
    ENDPOINT_REQUESTS.labels(*where, outcome).inc()


def endpoint_gone(endpoint: EndpointRef) -> None:
    """Show nothing more of an endpoint that was deleted."""
    for metric in (
        ENDPOINT_RUNNING, ENDPOINT_QUEUED, ENDPOINT_BREAKER, ENDPOINT_REQUESTS, ENDPOINT_LATENCY,
        ENDPOINT_CACHED, ENDPOINT_PROMPT,
    ):  # fmt: skip
        metric.remove_by_labels({"namespace": endpoint.namespace, "endpoint": endpoint.name})
