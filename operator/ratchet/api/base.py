"""What the types of all resources are made of: the model base, CEL rules, bounded fields.

Meaning is written once: a field's docstring becomes its description in the CRD and in
``docs/api.md``, its bounds become the schema's, and ``RULES`` become ``x-kubernetes-validations``.
Every string, list and number is bounded, since the API server refuses rules whose worst-case cost
it cannot bound.

Objects are parsed leniently (unknown fields are ignored): the API server has refused or pruned
what it does not know, and a newer operator may have written more than this one reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One CEL rule (``x-kubernetes-validations``) and what the API server says when it fails.

    ``reason`` is one of the four that the API server knows; ``field`` is the path of the field to
    blame, relative to where the rule stands, such as ``.goal``.
    """

    rule: str
    message: str
    reason: str = "FieldValueInvalid"
    field: str | None = None

    def to_schema(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.rule, "message": self.message, "reason": self.reason}
        return entry if self.field is None else {**entry, "fieldPath": self.field}


def _add_rules(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """What pydantic calls with the schema of each model: add the model's CEL rules to it."""
    rules = model.RULES if issubclass(model, Model) else ()
    if rules:
        schema["x-kubernetes-validations"] = [rule.to_schema() for rule in rules]


class Model(BaseModel):
    """Base of all types of the API: camelCase outside, frozen, lenient about unknown fields."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        json_schema_extra=_add_rules,
    )


def immutable_rules(*fields: str, required: tuple[str, ...] = (), why: str) -> tuple[Rule, ...]:
    """Rules that forbid changing, adding and removing each of ``fields`` (names as in YAML).

    They stand one level above the fields, since a rule on an optional field is not evaluated when
    the field is added or removed. The message holds the words "is immutable", by which Flux tells
    such a refusal from others (fluxcd/pkg, ssa/errors). ``why`` ends it and says what to do.
    """
    return tuple(
        Rule(
            rule=_unchanged(name, required=name in required),
            message=f"{name} is immutable: {why}",
            reason="FieldValueForbidden",
            field=f".{name}",
        )
        for name in fields
    )


def _unchanged(name: str, *, required: bool) -> str:
    same = f"self.{name} == oldSelf.{name}"
    if required:
        return same
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {same})"


def listed(list_type: str, *, most: int, least: int = 0, keys: tuple[str, ...] = ()) -> Any:
    """Bounds and Kubernetes list type (atomic, set or map by ``keys``) of a list."""
    extra: dict[str, Any] = {"x-kubernetes-list-type": list_type}
    if keys:
        extra["x-kubernetes-list-map-keys"] = list(keys)
    return Field(min_length=least or None, max_length=most, json_schema_extra=extra)


def chars(most: int, *, least: int = 0, pattern: str | None = None) -> Any:
    """Bounds of a string, in characters."""
    return Field(min_length=least or None, max_length=most, pattern=pattern)


INT64_MAX = 2**53 - 1
"""Largest number that every JSON reader keeps exactly."""

Name = Annotated[str, chars(253, least=1, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Namespace = Annotated[str, chars(63, least=1, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Key = Annotated[str, chars(253, least=1, pattern=r"^[-._a-zA-Z0-9]+$")]
Uid = Annotated[str, chars(64, least=1)]
Digest = Annotated[str, chars(71, least=64, pattern=r"^(sha256:)?[0-9a-f]{64}$")]
Image = Annotated[str, chars(1024, least=1, pattern=r"^\S+$")]
Word = Annotated[str, chars(128, least=1)]
Count = Annotated[int, Field(ge=0, le=INT64_MAX)]
Positive = Annotated[int, Field(ge=1, le=INT64_MAX)]
Time = datetime
Decimal = Annotated[str, chars(20, least=1, pattern=r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?$")]
"""An exact amount that is not negative, as text: ``0.15``."""

_QUANTITY = r"^([0-9]+|[0-9]*\.[0-9]+)([eE][-+]?[0-9]+|m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$"
Quantity = Annotated[
    str,
    BeforeValidator(str),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "pattern": _QUANTITY,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""A Kubernetes quantity such as ``500m`` or ``2Gi``; a bare number is taken too."""


class ObjectMeta(Model):
    """What the operator reads of an object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of ``kubectl get``; ``wide`` ones are shown with ``-o wide`` only."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a CRD says about a kind besides its schema."""

    plural: str
    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    status_default: dict[str, str | int] | None = None


class Resource(Model):
    """Base of the five kinds: subclasses set ``KIND`` and add ``spec`` and perhaps ``status``."""

    KIND: ClassVar[Kind]

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()


AGE = Column(
    name="AGE",
    path=".metadata.creationTimestamp",
    description="Time since it was created.",
    type="date",
)
