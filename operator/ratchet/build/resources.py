"""Requests and limits of the shell container: the class's own, and defaults that fit them."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from ratchet.build.settings import Amounts, SandboxSettings
from ratchet.core.config import Resources

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip


def shell_resources(asked: Resources, settings: SandboxSettings) -> dict[str, dict[str, str]]:
    """What is asked for wins. A default that would contradict it (a request above its limit, which
    Kubernetes refuses) is moved to it."""
    requests, limits = dict(asked.requests), dict(asked.limits)
    return {
        "requests": {**_fitting(settings.requests, limits, at_most=True), **requests},
        "limits": {**_fitting(settings.limits, requests, at_most=False), **limits},
    }


def _fitting(defaults: Amounts, bounds: dict[str, str], *, at_most: bool) -> dict[str, str]:
    pick = min if at_most else max
    return {
        name: pick((amount, bounds.get(name, amount)), key=quantity) for name, amount in defaults
    }


def quantity(text: str) -> Decimal:
    """The number that a Kubernetes quantity stands for. Raises ValueError.

    >>> quantity("1500m"), quantity("2Gi")
    (Decimal('1.500'), Decimal('2147483648'))
    """
    number = text.rstrip("numkKMGTPEi")
    try:
        return Decimal(number) * _SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError) as error:
        raise ValueError(f"{text!r} is not a Kubernetes quantity, such as 500m or 2Gi") from error
