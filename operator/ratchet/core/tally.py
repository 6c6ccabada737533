"""What turns come to, counted as they are added and not over and over."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from ratchet.core.records import Outcome, Turn
from ratchet.core.replies import Usage


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over recorded turns."""

    turns: int = 0
    tool_calls: int = 0
    unknown: int = 0
    """Outcomes that could not be known: those reported, and those answered by a re-run."""
    usage: Usage = field(default_factory=Usage)
    cost: Decimal = Decimal(0)

    def with_turn(self, turn: Turn, cost: Decimal) -> Tally:
        """The sums with one more turn, whose reply has cost so much."""
        reported = sum(result.outcome is Outcome.UNKNOWN for result in turn.results or ())
        return Tally(
            turns=self.turns + 1,
            tool_calls=self.tool_calls + (len(turn.reply.calls) if turn.reply.verdict.runs else 0),
            unknown=self.unknown + reported + len(turn.reruns),
            usage=self.usage + turn.reply.usage,
            cost=self.cost + cost,
        )
