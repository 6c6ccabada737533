"""AgentProfile: defaults that many tasks share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api import names
from ratchet.api.base import AGE, Column, Kind, Model, Resource, chars
from ratchet.api.common import (
    DEADLINE_MAX,
    Limits,
    ModelChoice,
    RetryPolicy,
    SandboxChoice,
    Tools,
)
from ratchet.api.policy import Constraints, Policy
from ratchet.core.config import Completion, UnknownPolicy


class AgentProfileSpec(Model):
    """Defaults for tasks. A task's own field wins; a running task keeps what it started with."""

    instructions: Annotated[str, chars(32_768)] | None = None
    """How the agent is to work, added to the system prompt; up to 32,768 characters. Default:
    none. Mutable; running tasks keep the old text."""
    model: ModelChoice | None = None
    """Which model is asked, and how, where the task does not say. Mutable."""
    tools: Tools | None = None
    """Which tools the model may call, where the task does not say. Default: all. Mutable."""
    sandbox: SandboxChoice | None = None
    """Which sandbox the tools run in, where the task does not say. Mutable."""
    limits: Limits | None = None
    """How much a task may use, where the task does not say. Mutable."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=DEADLINE_MAX)] | None = None
    """Seconds from the start of a task until it is ended, 1 to 604,800 (a week), where the task
    does not say. Default: no deadline. Mutable."""
    retry_policy: RetryPolicy | None = None
    """What is tried again, and how often, where the task does not say. Mutable."""
    on_unknown_outcome: UnknownPolicy | None = None
    """What to do about a call that may or may not have happened, where the task does not say:
    Report, Retry or Fail. Default: Report. Mutable."""
    completion: Completion | None = None
    """What ends a task with success, where the task does not say: Explicit or Text. Default:
    Explicit. Mutable."""
    constraints: Constraints | None = None
    """Rules that the model is told to keep, each a sentence of up to 500 characters, at most 32;
    those of the task follow. Default: none. Mutable."""
    policy: Policy | None = None
    """Rules about tool calls that the operator enforces. They come before those of the task, which
    cannot undo them. Default: none. Mutable."""


class AgentProfile(Resource):
    """AgentProfile holds defaults that many tasks share: instructions, model, tools, sandbox and
    limits. A task names it in spec.profileRef."""

    KIND: ClassVar[Kind] = Kind(
        plural=names.PROFILE_PLURAL,
        columns=(
            Column(
                name="MODEL", path=".spec.model.endpointRef.name", description="The ModelEndpoint."
            ),
            Column(
                name="SANDBOX", path=".spec.sandbox.classRef.name", description="The SandboxClass."
            ),
            AGE,
        ),
    )

    spec: AgentProfileSpec
    """The defaults. Mutable; running tasks keep what they started with."""
