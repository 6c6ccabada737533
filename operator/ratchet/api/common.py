"""Parts of specs that a task and a profile share: model, tools, sandbox, limits, retries."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api.base import (
    Decimal,
    Image,
    Key,
    Model,
    Name,
    Namespace,
    Positive,
    Rule,
    listed,
)

INLINE_MAX = 200 * 1024
"""Bytes that goal, context, images and inline files may have together: kubectl's client-side apply
keeps the whole object in an annotation, which ends at 262,144 bytes."""
TURNS_MAX = 1000
DEADLINE_MAX = 7 * 24 * 3600
FALLBACKS_MAX = 4

_NS = "__namespace__"
"""The field namespace in CEL, where the word itself is reserved."""


class ToolName(StrEnum):
    """Tools that a task may enable or disable; finish is always there and is not listed."""

    BASH = "bash"
    READ_FILE = "read_file"
    WRITE_FILE = "write_file"
    SEARCH_REPLACE = "search_replace"
    GREP = "grep"
    TODO = "todo"


class NameRef(Model):
    """A reference to an object of the same namespace by its name."""

    name: Name
    """Name of the object, in the same namespace. Required."""


class EndpointRef(Model):
    """A reference to a ModelEndpoint, of this namespace or of one that shares it."""

    name: Name
    """Name of the ModelEndpoint. Required."""
    namespace: Namespace | None = None
    """Namespace of the ModelEndpoint, which must name the task's in its allowedNamespaces. Default:
    the task's own."""


class ReasoningEffort(StrEnum):
    """How long the model is to think before it answers."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class SecretKeyRef(Model):
    """A reference to one key of a Secret of the same namespace."""

    name: Name
    """Name of the Secret, in the same namespace. Required."""
    key: Key
    """Key in the Secret's data. Required."""


class CertificatesRef(Model):
    """A reference to certificates in a ConfigMap of the same namespace."""

    name: Name
    """Name of the ConfigMap, in the same namespace. Required."""
    key: Key | None = None
    """Key in the ConfigMap's data that holds the certificates as PEM. Default: ca.crt."""


class ConfigMapKeyRef(Model):
    """A reference to one key of a ConfigMap of the same namespace."""

    name: Name
    """Name of the ConfigMap, in the same namespace. Required."""
    key: Key
    """Key in the ConfigMap's data or binaryData. Required."""


class ModelChoice(Model):
    """Which model is asked, and how."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule=(
                "!has(self.fallbacks)"
                " || self.fallbacks.all(f, self.fallbacks.exists_one(g, g == f))"
            ),
            message="fallbacks names the same ModelEndpoint twice: take one of the two out",
            field=".fallbacks",
        ),
        Rule(
            rule=(
                "!has(self.fallbacks) || !has(self.endpointRef)"
                " || !self.fallbacks.exists(f, f.name == self.endpointRef.name"
                f" && has(f.{_NS}) == has(self.endpointRef.{_NS})"
                f" && (!has(f.{_NS}) || f.{_NS} == self.endpointRef.{_NS}))"
            ),
            message=(
                "fallbacks leads back to the ModelEndpoint of endpointRef, which is asked first:"
                " take it out of fallbacks"
            ),
            field=".fallbacks",
        ),
    )

    endpoint_ref: EndpointRef | None = None
    """The ModelEndpoint to ask. Default: the profile's, else the ModelEndpoint named "default" of
    the same namespace."""
    fallbacks: Annotated[tuple[EndpointRef, ...], listed("atomic", most=FALLBACKS_MAX)] | None = (
        None
    )
    """ModelEndpoints that are asked, in this order, where the one before has failed; at most 4,
    none of them twice. Default: the profile's, else none."""
    reasoning_effort: ReasoningEffort | None = None
    """How long the model is to think before it answers, for models that honour it: none, low,
    medium or high. Default: the profile's, else it is not sent and the model server decides."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature, 0 to 2. Default: the profile's, else it is not sent and the model
    server decides."""
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Most tokens of one reply, 1 to 1,000,000. Default: the profile's, else it is not sent and
    the model server decides."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Seed of the sampling, 0 to 2,147,483,647, for servers that honour it. Default: the
    profile's, else it is not sent."""


class Tools(Model):
    """Which tools the model may call. The tool finish is always there."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule=(
                "!has(self.enabled) || !has(self.disabled)"
                " || !self.enabled.exists(t, t in self.disabled)"
            ),
            message="a tool is both enabled and disabled: take it out of one of the two lists",
        ),
    )

    enabled: Annotated[tuple[ToolName, ...], listed("set", least=1, most=16)] | None = None
    """The tools that the model may call: bash (with bash_output, bash_stdin and bash_kill),
    read_file, write_file, search_replace, grep, todo.
    At least one. Default: the profile's, else all of them."""
    disabled: Annotated[tuple[ToolName, ...], listed("set", most=16)] | None = None
    """Tools taken out of those enabled. Default: the profile's, else none."""


class SandboxChoice(Model):
    """Which sandbox the tools run in."""

    class_ref: NameRef | None = None
    """The SandboxClass that the pod is made from. Default: the profile's, else the SandboxClass
    named "default" of the same namespace."""
    image: Image | None = None
    """Container image of the shell that runs the commands; any Linux image with a shell. Default:
    the profile's, else the image of the SandboxClass."""


class Limits(Model):
    """How much a task may use before it is ended."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="!has(self.cost) || double(self.cost) > 0.0",
            message="cost leaves nothing to spend: give an amount above 0, or leave it out",
            field=".cost",
        ),
    )

    turns: Annotated[int, Field(ge=1, le=TURNS_MAX)] | None = None
    """Most turns (a model reply with its tool calls), 1 to 1000. The task ends with reason
    TurnLimit. Default: the profile's, else 50."""
    tokens: Positive | None = None
    """Most tokens, prompt and completion of all requests together, lost ones included; checked
    before each request with an estimate of what it will use. The task ends with reason
    TokenLimit. Default: the profile's, else no limit."""
    cost: Decimal | None = None
    """Most that the requests may cost together, a decimal number in quotes such as "2.50", in the
    currency of the endpoints' prices; checked like tokens. All endpoints of the task need a price.
    The task ends with reason CostLimit. Default: the profile's, else no limit."""


class ModelRetries(Model):
    """How model requests are tried again."""

    attempts: Annotated[int, Field(ge=1, le=10)] | None = None
    """Most tries of one request at one endpoint that fail by connection, timeout or HTTP 5xx, 1 to
    10; then the next of model.fallbacks is asked. Waiting for a busy server (HTTP 429, 503) is no
    try. Default: the profile's, else retry.attempts of the ModelEndpoint, else 3."""
    repairs: Annotated[int, Field(ge=0, le=10)] | None = None
    """Most times in a row that an unusable reply (malformed, cut off, empty, unknown tool) is
    answered with what was wrong, 0 to 10. Default: the profile's, else 3."""
    give_up_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    """Seconds that all endpoints together may fail in a row before the task ends with reason
    ModelUnreachable, 0 to 86,400 (a day). Until then they are tried again, with growing pauses; 0
    ends the task when each has failed once over. Default: the profile's, else 1,800."""


class RetryPolicy(Model):
    """What is tried again, and how often."""

    model: ModelRetries | None = None
    """Tries of model requests and repairs of unusable replies. Default: the profile's."""
