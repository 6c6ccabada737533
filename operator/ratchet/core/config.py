"""The resolved configuration of a task: what record 0 of its journal freezes.

Profile, endpoint and class are read once, at the first claim. From then on the
loop knows this copy alone, so that an edit elsewhere never changes a running task.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from ratchet.core.keys import canonical

JOURNAL_VERSION = 1
"""Version of the records and of the code that builds prompts from them."""


class Engine(StrEnum):
    """Which server speaks behind an endpoint, since only some have more than the common API."""

    SGLANG = "SGLang"
    OPENAI = "OpenAI"


class UnknownPolicy(StrEnum):
    """What to do about a call that may or may not have happened and must not be repeated unasked."""

    REPORT = "Report"
    RETRY = "Retry"
    FAIL = "Fail"


class Completion(StrEnum):
    """What a second reply without tool calls means: still no end, or the result."""

    EXPLICIT = "Explicit"
    TEXT = "Text"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Where and how the model is asked. Secrets are named here, never copied."""

    endpoint: str
    url: str
    model: str
    engine: Engine = Engine.OPENAI
    secret_name: str = ""
    secret_key: str = ""
    context_window: int | None = None
    connect_timeout_s: float = 5.0
    total_timeout_s: float = 600.0
    temperature: float | None = None
    max_output_tokens: int | None = None
    seed: int | None = None
    attempts: int = 3
    repairs: int = 3


@dataclass(frozen=True, slots=True)
class Resources:
    """Kubernetes quantities by name, in the order given; empty means the operator's default."""

    requests: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What the sandbox pods of this task look like."""

    image: str
    resources: Resources = Resources()
    runtime_class: str = ""
    pull_secrets: tuple[str, ...] = ()
    workspace_size_limit: str = "2Gi"
    hard_timeout_s: int = 300


@dataclass(frozen=True, slots=True)
class File:
    """A file of the task's start workspace. `content` is inline text; else a ConfigMap key is named."""

    path: str
    content: str | None = None
    config_map: str = ""
    key: str = ""
    mode: str = "0644"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a whole task. `tokens` counts prompt and completion of every recorded request."""

    turns: int = 50
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the loop needs to know about a task, resolved."""

    goal: str
    model: ModelConfig
    sandbox: SandboxConfig
    context: str = ""
    instructions: str = ""
    files: tuple[File, ...] = ()
    tools: tuple[str, ...] = ()
    """Names of the enabled tools in catalogue order, `finish` included."""
    limits: Limits = Limits()
    active_deadline_s: int | None = None
    on_unknown: UnknownPolicy = UnknownPolicy.REPORT
    completion: Completion = Completion.EXPLICIT

    def to_json(self) -> str:
        """Canonical JSON text, as stored in record 0."""
        return canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The configuration that `to_json` wrote. Raises ValueError, TypeError or KeyError."""
        raw = json.loads(text)
        model, sandbox = raw["model"], raw["sandbox"]
        resources = sandbox["resources"]
        return cls(
            goal=raw["goal"],
            model=ModelConfig(**{**model, "engine": Engine(model["engine"])}),
            sandbox=SandboxConfig(
                **{
                    **sandbox,
                    "resources": Resources(
                        requests=_pairs(resources["requests"]), limits=_pairs(resources["limits"])
                    ),
                    "pull_secrets": tuple(sandbox["pull_secrets"]),
                }
            ),
            context=raw["context"],
            instructions=raw["instructions"],
            files=tuple(File(**file) for file in raw["files"]),
            tools=tuple(raw["tools"]),
            limits=Limits(**raw["limits"]),
            active_deadline_s=raw["active_deadline_s"],
            on_unknown=UnknownPolicy(raw["on_unknown"]),
            completion=Completion(raw["completion"]),
        )


def _pairs(raw: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in raw)
