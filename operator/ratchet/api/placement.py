"""Which nodes take a sandbox: values of labels, and taints that are accepted."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api.base import Model, Rule, chars

LABEL_KEY = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
"""What Kubernetes takes as the key of a label or taint, such as node.kubernetes.io/disk."""

LabelValue = Annotated[str, chars(63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]


class Operator(StrEnum):
    """How a toleration is compared with a taint."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class Effect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A taint of nodes that the pod accepts; the fields are those of a pod's tolerations."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            message="a toleration without a key is one of all taints: set operator to Exists",
            field=".operator",
        ),
        Rule(
            rule=(
                "!has(self.value) || self.value == '' || !has(self.operator)"
                " || self.operator != 'Exists'"
            ),
            message="operator Exists compares no value: take value out",
            field=".value",
        ),
        Rule(
            rule=(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')"
            ),
            message="tolerationSeconds goes with effect NoExecute alone: set it, or take this out",
            field=".tolerationSeconds",
        ),
    )

    key: Annotated[str, chars(317, least=1, pattern=LABEL_KEY)] | None = None
    """Key of the taint. Default: all keys; operator is Exists then."""
    operator: Operator | None = None
    """Equal compares key and value, Exists the key alone. Default: Equal."""
    value: LabelValue | None = None
    """Value of the taint, for operator Equal. Default: empty."""
    effect: Effect | None = None
    """NoSchedule, PreferNoSchedule or NoExecute. Default: all of them."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Seconds that the pod stays on a node which gets a taint of effect NoExecute. Default: it
    stays."""
