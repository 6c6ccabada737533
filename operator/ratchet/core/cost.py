"""What model requests cost, exactly: decimals, never floats. Pure."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

from ratchet.core.config import Config, ModelConfig, Price
from ratchet.core.records import Turn
from ratchet.core.replies import Usage

MILLION = Decimal(1_000_000)
NOTHING = Decimal(0)


def priced(config: Config) -> bool:
    """Whether any endpoint of the task has a price."""
    return any(model.price is not None for model in config.endpoints)


def cost(usage: Usage, price: Price | None) -> Decimal:
    """What these tokens cost; nothing without a price.

    `usage.cached` is the part of the prompt that came from a cache, and reasoning is a part of the
    completion.
    """
    if price is None:
        return NOTHING
    fresh, cached, output = _per_token(price)
    return (usage.prompt - usage.cached) * fresh + usage.cached * cached + usage.completion * output


def turn_cost(config: Config, turn: Turn) -> Decimal:
    """What the reply of a turn cost at the endpoint that it names."""
    return cost(turn.reply.usage, _asked(config, turn.reply.endpoint).price)


def prompt_cost(model: ModelConfig, tokens: int) -> Decimal:
    """What a prompt of so many tokens costs at most: none of it from a cache."""
    return cost(Usage(prompt=tokens), model.price)


def lost_cost(config: Config, tokens: int) -> Decimal:
    """What lost tokens may have cost: at the dearest input price, since nobody knows where it was."""
    return max((prompt_cost(model, tokens) for model in config.endpoints), default=NOTHING)


def spelled(amount: Decimal) -> str:
    """An amount as it is shown: 6 decimals."""
    return f"{amount:.6f}"


def _asked(config: Config, endpoint: str) -> ModelConfig:
    """The endpoint of this name; the first one where the record names none that is known."""
    return next((m for m in config.endpoints if m.known_as == endpoint), config.model)


@lru_cache(maxsize=256)
def _per_token(price: Price) -> tuple[Decimal, Decimal, Decimal]:
    """Input, cached input and output. Raises decimal.InvalidOperation for what is no number."""
    fresh, output = Decimal(price.input) / MILLION, Decimal(price.output) / MILLION
    cached = Decimal(price.cached_input) / MILLION if price.cached_input else fresh
    return fresh, cached, output
