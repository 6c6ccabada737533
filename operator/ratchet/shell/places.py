"""The place of one task at a model endpoint: taken at the gate, used once, and always given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from ratchet.core import commands as c
from ratchet.core.config import ModelConfig
from ratchet.core.replies import ModelFailure, RawReply
from ratchet.ports import Answered, Away, EndpointRef, Gate, Permit, TaskRef, Ticket, Told


@dataclass(slots=True)
class Use:
    """A place while a request is under way. What is not said to have ended was withdrawn."""

    how: Answered | ModelFailure | None = None

    def ended(self, raw: RawReply | ModelFailure, latency_s: float) -> None:
        """The request has brought this."""
        self.how = raw if isinstance(raw, ModelFailure) else Answered(latency_s, raw.usage)


@dataclass(frozen=True, slots=True)
class Held:
    """A place that was given and not used yet, and what it was given for."""

    turn: int
    attempt: int
    permit: Permit


class Places:
    """Of one task, which has at most one place at a time."""

    def __init__(self, gate: Gate, task: TaskRef, created: datetime) -> None:
        self._gate = gate
        self._task = task
        self._created = created
        self.held: Held | None = None

    async def enter(
        self, command: c.Admit, model: ModelConfig, told: Told, patience_s: float | None = None
    ) -> Away | None:
        """Wait for a place, and hold it; Away if the endpoint is known not to serve.

        `patience_s`: also if it is full for longer.
        """
        ticket = Ticket(
            endpoint=EndpointRef(model.namespace or self._task.namespace, model.endpoint),
            task=self._task,
            priority=command.priority,
            running=command.running,
            created=self._created,
            tokens=command.tokens,
            patience_s=patience_s,
        )
        found = await self._gate.enter(ticket, told)
        if isinstance(found, Away):
            return found
        self.give_back()
        self.held = Held(command.turn, command.attempt, found)
        return None

    def give_back(self) -> None:
        """Give the place back unused, if there is one."""
        if self.held is not None:
            held, self.held = self.held, None
            held.permit.done(None)

    @contextmanager
    def used(self) -> Iterator[Use]:
        """Use the place for one request; it is given back however that ends."""
        held, self.held = self.held, None
        use = Use()
        try:
            yield use
        finally:
            if held is not None:
                held.permit.done(use.how)
