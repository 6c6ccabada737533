"""What the operator knows of a model endpoint, as it writes it into its status."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.api.base import Count, Model, Time, chars, listed
from ratchet.api.conditions import Condition, EndpointCondition

Seconds = Annotated[float, Field(ge=0, le=86_400)]


class ModelCondition(Condition):
    """One aspect of the endpoint's state, as Kubernetes tools read it."""

    type: EndpointCondition
    """Which aspect: Ready (it answers and serves the model) or Saturated (requests wait for a
    place)."""


class Latency(Model):
    """How long the last 100 answered requests took."""

    p50_seconds: Seconds
    """Half of them took no longer, in seconds."""
    p95_seconds: Seconds
    """19 of 20 took no longer, in seconds."""


class LastError(Model):
    """The newest failed request."""

    message: Annotated[str, chars(1024)]
    """What went wrong, in a sentence."""
    time: Time
    """When it was."""


class ModelEndpointStatus(Model):
    """What the operator sees of the endpoint. Written by the operator only, when it changes and at
    most every 5 seconds."""

    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """The metadata.generation that this status was made for; -1 until the operator has seen the
    endpoint."""
    conditions: (
        Annotated[tuple[ModelCondition, ...], listed("map", most=8, keys=("type",))] | None
    ) = None
    """Ready=True: it answers and serves the model. Saturated=True: it takes no more requests for
    now, and tasks are queued."""
    running: Count | None = None
    """Requests of tasks that are under way."""
    queued: Count | None = None
    """Requests of tasks that wait for a place."""
    latency: Latency | None = None
    """How long the last 100 answered requests took; absent until there is one."""
    cache_hit_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the prompt tokens of the last 100 answered requests that the server had in its
    cache, in percent; absent where it does not say."""
    last_error: LastError | None = None
    """The newest failed request; absent until there is one."""
