"""Parts of specs that a task and a profile share: model, tools, sandbox, limits, retries."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api.base import Image, Key, Model, Name, Positive, Rule, listed

TURNS_MAX = 1000
DEADLINE_MAX = 7 * 24 * 3600


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


class SecretKeyRef(Model):
    """A reference to one key of a Secret of the same namespace."""

    name: Name
    """Name of the Secret, in the same namespace. Required."""
    key: Key
    """Key in the Secret's data. Required."""


class ConfigMapKeyRef(Model):
    """A reference to one key of a ConfigMap of the same namespace."""

    name: Name
    """Name of the ConfigMap, in the same namespace. Required."""
    key: Key
    """Key in the ConfigMap's data or binaryData. Required."""


class ModelChoice(Model):
    """Which model is asked, and how."""

    endpoint_ref: NameRef | None = None
    """The ModelEndpoint to ask. Default: the profile's, else the ModelEndpoint named "default" of
    the same namespace."""
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

    turns: Annotated[int, Field(ge=1, le=TURNS_MAX)] | None = None
    """Most turns (a model reply with its tool calls), 1 to 1000. The task ends with reason
    TurnLimit. Default: the profile's, else 50."""
    tokens: Positive | None = None
    """Most tokens, prompt and completion of all requests together; checked before each request,
    so that the last one may pass it. The task ends with reason TokenLimit. Default: the
    profile's, else no limit."""


class ModelRetries(Model):
    """How model requests are tried again."""

    attempts: Annotated[int, Field(ge=1, le=10)] | None = None
    """Most tries of one request that fails by connection, timeout or HTTP 5xx, 1 to 10. Waiting
    for a busy server (HTTP 429, 503) is no try. Default: the profile's, else 3."""
    repairs: Annotated[int, Field(ge=0, le=10)] | None = None
    """Most times in a row that an unusable reply (malformed, cut off, empty, unknown tool) is
    answered with what was wrong, 0 to 10. Default: the profile's, else 3."""


class RetryPolicy(Model):
    """What is tried again, and how often."""

    model: ModelRetries | None = None
    """Tries of model requests and repairs of unusable replies. Default: the profile's."""
