"""The model's part of a task's configuration, out of its ModelEndpoints. Pure."""

from __future__ import annotations

from typing import Final

from ratchet.api.common import ModelChoice, ModelRetries
from ratchet.api.endpoint import (
    BACKOFF_FIRST_S,
    BACKOFF_MOST_S,
    CA_KEY,
    CONNECT_S,
    TOTAL_S,
    Backoff,
    ModelEndpoint,
    Price,
    Retry,
    Timeouts,
)
from ratchet.api.precedence import first, first_or
from ratchet.core import config as core
from ratchet.core.transcript import History, request_after
from ratchet.core.window import IMAGE_TOKENS, data_bytes

ATTEMPTS: Final = 3
REPAIRS: Final = 3
GIVE_UP_S: Final = 1800

_BYTES_OF_TOKEN: Final = 5
"""More than the tokens of any usual text have on average: English in the tokenizers of today's
models has 4 to 5. So a prompt is only ever refused where it surely does not fit."""


def model_config(
    endpoint: ModelEndpoint,
    namespace: str,
    choices: tuple[ModelChoice, ModelChoice],
    retries: tuple[ModelRetries, ModelRetries],
) -> core.ModelConfig:
    """How a task of `namespace` asks this endpoint; `choices` and `retries`: its own, its
    profile's."""
    own, profile = choices
    spec, where = endpoint.spec, endpoint.metadata
    timeouts, retry = spec.timeouts or Timeouts(), spec.retry or Retry()
    backoff = retry.backoff_seconds or Backoff()
    key, ca = spec.api_key_secret_ref, spec.ca_config_map_ref
    return core.ModelConfig(
        endpoint=where.name,
        namespace="" if where.namespace == namespace else where.namespace,
        url=spec.url.rstrip("/"),
        model=spec.model,
        engine=first_or(core.Engine.OPENAI, spec.engine),
        secret_name=key.name if key else "",
        secret_key=key.key if key else "",
        ca_config_map=ca.name if ca else "",
        ca_key=(ca.key or CA_KEY) if ca else "",
        headers=tuple((header.name, header.value) for header in spec.headers or ()),
        context_window=spec.context_window,
        vision=spec.vision or False,
        price=_price(spec.price),
        connect_timeout_s=first_or(CONNECT_S, timeouts.connect_seconds),
        first_byte_timeout_s=timeouts.first_byte_seconds,
        total_timeout_s=first_or(TOTAL_S, timeouts.total_seconds),
        temperature=first(own.temperature, profile.temperature),
        max_output_tokens=first(own.max_output_tokens, profile.max_output_tokens),
        seed=first(own.seed, profile.seed),
        reasoning_effort=str(first(own.reasoning_effort, profile.reasoning_effort) or ""),
        attempts=first_or(ATTEMPTS, *(one.attempts for one in retries), retry.attempts),
        repairs=first_or(REPAIRS, *(one.repairs for one in retries)),
        backoff_first_s=first_or(BACKOFF_FIRST_S, backoff.first),
        backoff_most_s=first_or(BACKOFF_MOST_S, backoff.most),
        give_up_s=first_or(GIVE_UP_S, *(one.give_up_seconds for one in retries)),
    )


def _price(given: Price | None) -> core.Price | None:
    if given is None:
        return None
    return core.Price(
        input=given.input_per_million,
        output=given.output_per_million,
        cached_input=given.cached_input_per_million or "",
    )


def model_problems(config: core.Config) -> tuple[str, ...]:
    """Why the endpoints cannot serve this task, in sentences; editing an endpoint mends each."""
    return (
        *_blind(config),
        *(problem for model in config.endpoints for problem in _window(config, model)),
        *_unpriced(config),
    )


def _blind(config: core.Config) -> tuple[str, ...]:
    count = len(config.images)
    if not count or config.model.vision:
        return ()
    images = f"{count} images" if count > 1 else "an image"
    return (
        f"spec.contextImages has {images}, and ModelEndpoint {config.model.known_as}, which is asked"
        " first, does not say that its model takes any: set vision: true on it if its model takes"
        " images, or leave contextImages out.",
    )


def _window(config: core.Config, model: core.ModelConfig) -> tuple[str, ...]:
    window, reply = model.context_window, model.max_output_tokens
    if window is None:
        return ()
    if reply is not None and reply >= window:
        return (
            f"model.maxOutputTokens ({reply}) leaves no room for the request in the contextWindow"
            f" ({window}) of ModelEndpoint {model.known_as}: lower the first or raise the second.",
        )
    prompt = least_tokens(config, model)
    if prompt + (reply or 0) < window:
        return ()
    beside = f" beside a reply of {reply} (model.maxOutputTokens)" if reply else ""
    images = ""
    if config.images and model.vision:
        images = f" with images ({IMAGE_TOKENS} for each of {len(config.images)})"
    return (
        f"goal, context, instructions and tools{images} take about {prompt} tokens or more, which do not"
        f" fit{beside} into the contextWindow ({window}) of ModelEndpoint {model.known_as}: put"
        f" large texts into files,{' give fewer images,' if images else ''} or use an endpoint with"
        " a larger window.",
    )


def least_tokens(config: core.Config, model: core.ModelConfig | None = None) -> int:
    """What the first request to this endpoint takes at the very least, in tokens; None given is the
    first one. Images are the exception: how many tokens a model makes of one only its server knows,
    so each counts as much as the estimate says."""
    model = model or config.model
    images = config.images if model.vision else ()
    body = request_after(config, History.of(config, model), 1, model).body
    text = len(body.encode("utf-8", "replace")) - data_bytes(images)
    return text // _BYTES_OF_TOKEN + len(images) * IMAGE_TOKENS


def _unpriced(config: core.Config) -> tuple[str, ...]:
    if not config.limits.cost:
        return ()
    return tuple(
        f"limits.cost is {config.limits.cost}, and ModelEndpoint {model.known_as} has no price: add"
        " one to it, or take the limit out."
        for model in config.endpoints
        if model.price is None
    )
