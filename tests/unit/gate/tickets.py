"""Tickets for tests."""

from __future__ import annotations

from datetime import timedelta

from ratchet.core.facts import EndpointRef, TaskRef, Ticket
from ratchet.core.replies import FailureKind, ModelFailure
from ratchet.fakes.clock import BEGIN

ENDPOINT = EndpointRef("models", "large")


def ticket(
    number: int,
    *,
    priority: int = 0,
    running: bool = False,
    began_s: float | None = None,
    tokens: int = 1000,
    endpoint: EndpointRef = ENDPOINT,
    patience_s: float | None = None,
) -> Ticket:
    """The ticket of a task; a higher number is a younger task unless `began_s` says otherwise."""
    return Ticket(
        endpoint=endpoint,
        task=TaskRef("space", f"task-{number}", f"uid-{number:05}"),
        priority=priority,
        running=running,
        created=BEGIN + timedelta(seconds=number if began_s is None else began_s),
        tokens=tokens,
        patience_s=patience_s,
    )


def failure(kind: FailureKind, retry_after_s: float | None = None) -> ModelFailure:
    return ModelFailure(kind, f"It failed: {kind}.", retry_after_s=retry_after_s)
