"""The catalogue of phases, conditions and reasons, for users of the API types.

It lives in `ratchet.core.conditions`, since the pure core decides which of them a task shows.
"""

from ratchet.core.conditions import (
    CONDITION_TYPES,
    PHASES,
    REASONS,
    SUCCESS_REASONS,
    TERMINAL_PHASES,
    ConditionType,
    Phase,
    Reason,
)

__all__ = [
    "CONDITION_TYPES",
    "PHASES",
    "REASONS",
    "SUCCESS_REASONS",
    "TERMINAL_PHASES",
    "ConditionType",
    "Phase",
    "Reason",
]
