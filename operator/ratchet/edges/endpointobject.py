"""What a ModelEndpoint object says: how it is asked, what it takes, what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ratchet.api.common import ModelChoice, ModelRetries
from ratchet.api.endpoint import Breaker, Capacity, ModelEndpoint
from ratchet.api.endpointproblems import endpoint_problems
from ratchet.api.modelconfig import model_config
from ratchet.api.precedence import first_or
from ratchet.core.admission import Terms
from ratchet.core.conditions import EndpointReason
from ratchet.core.config import Engine, ModelConfig
from ratchet.edges.probing import Verdict


def parsed(body: Mapping[str, Any]) -> tuple[ModelConfig | None, Verdict | None, Terms]:
    """How the endpoint is asked, what is wrong with it, and what it takes.

    An object that cannot be read at all sets no limits: it is of another version of the CRDs.
    """
    try:
        endpoint = ModelEndpoint.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        text = f"{where}: {first['msg']}. The CRDs and the operator may be of different versions."
        return None, Verdict(False, EndpointReason.CONFIG_INVALID, text), Terms()
    problems = endpoint_problems(endpoint.spec)
    problem = (
        Verdict(False, EndpointReason.CONFIG_INVALID, " ".join(problems)) if problems else None
    )
    config = model_config(
        endpoint,
        endpoint.metadata.namespace,
        (ModelChoice(), ModelChoice()),
        (ModelRetries(), ModelRetries()),
    )
    return config, problem, terms_of(endpoint)


def terms_of(endpoint: ModelEndpoint) -> Terms:
    """How much an endpoint takes, as its object says."""
    spec, fallback = endpoint.spec, Terms()
    capacity, breaker = spec.capacity or Capacity(), spec.breaker or Breaker()
    return Terms(
        requests=capacity.requests,
        tokens=capacity.tokens,
        failures=first_or(fallback.failures, breaker.failures),
        open_s=first_or(fallback.open_s, breaker.open_seconds),
        tells_load=spec.engine is Engine.SGLANG,
    )
