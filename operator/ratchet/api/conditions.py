"""Conditions of resources, and the catalogue of their words for users of the API types.

The words live in `ratchet.core.conditions`, since the pure core decides which of them are shown.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ratchet.api.base import Model, Time, chars
from ratchet.core.conditions import (
    CONDITION_TYPES,
    ENDPOINT_REASONS,
    PHASES,
    REASONS,
    SUCCESS_REASONS,
    TERMINAL_PHASES,
    ConditionType,
    EndpointCondition,
    EndpointReason,
    Phase,
    Reason,
)

__all__ = [
    "CONDITION_TYPES",
    "ENDPOINT_REASONS",
    "PHASES",
    "REASONS",
    "SUCCESS_REASONS",
    "TERMINAL_PHASES",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "EndpointCondition",
    "EndpointReason",
    "Phase",
    "Reason",
]


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One aspect of an object's state, as Kubernetes tools read it. Each kind has its own types."""

    type: str
    """Which aspect."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """The metadata.generation that the condition was set for."""
    last_transition_time: Time
    """When status changed last."""
    reason: Annotated[str, chars(128, least=1, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """Why, in one CamelCase word of the catalogue."""
    message: Annotated[str, chars(1024)] = ""
    """Why, in a sentence that says what to do where something is to be done."""
