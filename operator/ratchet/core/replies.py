"""What came back from a model, before anybody judged it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or many model requests; `cached` is the part of `prompt` read from a cache."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            self.reasoning + other.reasoning,
        )


@dataclass(frozen=True, slots=True)
class RawCall:
    """A tool call as the model wrote it; nothing about it has been checked."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class RawReply:
    """A complete answer of a model endpoint, in clean UTF-8."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[RawCall, ...] = ()
    finish_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    model: str = ""


class FailureKind(StrEnum):
    """Why there is no reply, by who must act."""

    WAIT = "Wait"
    """The server is full (429, 503): wait, and do not count an attempt."""
    RETRY = "Retry"
    """The way there is broken (connection, 5xx, timeout, unreadable answer): try again, counted."""
    CONTEXT = "Context"
    """The conversation no longer fits the model (400)."""
    REQUEST = "Request"
    """The server refuses this request (400): ours to mend, so no retry."""
    CONFIGURATION = "Configuration"
    """Address, key or model name are wrong (401, 403, 404): a person must act."""


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """One attempt that brought no reply. `message` says what happened, where, what to do next."""

    kind: FailureKind
    message: str
    status: int | None = None
    retry_after_s: float | None = None
    reached: bool = True
    """False where the request certainly never left, so that it has cost nothing."""
