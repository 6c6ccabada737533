"""The resolved configuration of a task: what record 0 of its journal freezes.

Profile, endpoint and class are read once, at the first claim. From then on the
loop knows this copy alone, so that an edit elsewhere never changes a running task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from ratchet.core.keys import canonical
from ratchet.core.tools import TOOLS_VERSION

JOURNAL_VERSION = 3
"""Version of the records and of the code that builds prompts from them."""
TRANSCRIPT_VERSION = 2
"""How the conversation is told to the model. 2: roles alternate, and old output is elided where the
window fills; a task keeps the version that it began with, since its requests are told from it."""


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


class RuleAction(StrEnum):
    """What a rule that matches a call decides about it."""

    ALLOW = "Allow"
    DENY = "Deny"


class OnLoss(StrEnum):
    """What the loss of a sandbox together with its workspace means."""

    RESTART = "Restart"
    FAIL = "Fail"


class AccessMode(StrEnum):
    """Who may mount a workspace's claim at the same time: one node, or one pod."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"


@dataclass(frozen=True, slots=True)
class Price:
    """Decimal texts: what a million tokens cost, in one currency that all endpoints share.

    `cached_input` is for prompt tokens read from a cache; empty means that they cost as much as others.
    """

    input: str = "0"
    output: str = "0"
    cached_input: str = ""


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
    """Failures of one request at this endpoint before the next one is asked."""
    repairs: int = 3
    namespace: str = ""
    """Of the ModelEndpoint, its Secret and its CA; empty means the task's own."""
    headers: tuple[tuple[str, str], ...] = ()
    ca_config_map: str = ""
    """ConfigMap with the certificates to trust instead of the system's, as PEM under `ca_key`."""
    ca_key: str = ""
    first_byte_timeout_s: float | None = None
    reasoning_effort: str = ""
    vision: bool = False
    """Whether the model takes images."""
    price: Price | None = None
    backoff_first_s: float = 1.0
    backoff_most_s: float = 60.0
    give_up_s: float = 0.0
    """How long all endpoints together may fail before the task does; 0 is at once."""

    @property
    def known_as(self) -> str:
        """The endpoint as records and people name it: with its namespace where that is another one."""
        return f"{self.namespace}/{self.endpoint}" if self.namespace else self.endpoint


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule about tool calls: a CEL expression that is true of the calls it decides about."""

    name: str
    when: str
    action: RuleAction
    message: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """Kubernetes quantities by name, in the order given; empty means the operator's default."""

    requests: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Toleration:
    """A taint of nodes that the pod accepts; empty texts and None are fields left out."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """The claim that holds workspace and ledger. An empty class is the cluster's default."""

    size: str
    storage_class: str = ""
    access_mode: AccessMode = AccessMode.READ_WRITE_ONCE


@dataclass(frozen=True, slots=True)
class EgressPort:
    """A port that may be connected to; the protocol is TCP or UDP."""

    port: int
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class EgressRule:
    """A destination: exactly one of `cidr`, `service` and `host` is not empty.

    An empty namespace of a service is the task's own. `host` may start with ``*.``.
    """

    ports: tuple[EgressPort, ...]
    cidr: str = ""
    except_: tuple[str, ...] = ()
    service: str = ""
    namespace: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What the sandbox pods of this task look like."""

    image: str
    resources: Resources = Resources()
    runtime_class: str = ""
    pull_secrets: tuple[str, ...] = ()
    workspace_size_limit: str = "2Gi"
    """Of a workspace on the node's disk; one on a claim has the claim's size."""
    hard_timeout_s: int = 300
    env: tuple[tuple[str, str], ...] = ()
    """Of the commands, in the order given; the runner itself never sees it."""
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    allow_root: bool = False
    read_only_root: bool = False
    claim: VolumeClaim | None = None
    """None is a workspace on the node's disk, which ends with the pod."""
    on_loss: OnLoss = OnLoss.RESTART
    egress: tuple[EgressRule, ...] = ()
    require_enforced_network: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """A file of the task's start workspace. `content` is inline text; else a ConfigMap key is named."""

    path: str
    content: str | None = None
    config_map: str = ""
    key: str = ""
    mode: str = "0644"


@dataclass(frozen=True, slots=True)
class ContextImage:
    """An image that the model is shown with the goal: its bytes as base64 text."""

    media_type: str
    data: str


@dataclass(frozen=True, slots=True)
class GitSource:
    """The repository that the workspace starts from.

    An empty `ref` is the remote's default branch; no `depth` is the whole history. The Secret is
    named here, never copied.
    """

    url: str
    ref: str = ""
    secret: str = ""
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a whole task. `tokens` counts prompt and completion of every recorded request.

    `cost` is a decimal text, in the currency of the endpoints' prices; empty means no bound.
    """

    turns: int = 50
    tokens: int | None = None
    cost: str = ""


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
    tools_version: int = TOOLS_VERSION
    """Which descriptions of the tools the model is given: those of the version that began it."""
    transcript_version: int = TRANSCRIPT_VERSION
    limits: Limits = Limits()
    active_deadline_s: int | None = None
    on_unknown: UnknownPolicy = UnknownPolicy.REPORT
    completion: Completion = Completion.EXPLICIT
    git: GitSource | None = None
    fallbacks: tuple[ModelConfig, ...] = ()
    """Endpoints that are asked, in this order, where `model` has failed."""
    constraints: tuple[str, ...] = ()
    """Rules that the model is told; `rules` are those that it cannot break."""
    rules: tuple[Rule, ...] = ()
    images: tuple[ContextImage, ...] = ()

    @property
    def endpoints(self) -> tuple[ModelConfig, ...]:
        """All endpoints in the order in which they are asked."""
        return (self.model, *self.fallbacks)

    def to_json(self) -> str:
        """Canonical JSON text, as stored in record 0.

        A field that the first journals did not have is left out while it says nothing, so that
        they are written today as they were then.
        """
        raw = asdict(self)
        raw["sandbox"] = _without(_LATER_SHAPE, raw["sandbox"])
        raw["model"] = _without(_LATER_MODEL, raw["model"])
        raw["fallbacks"] = tuple(_without(_LATER_MODEL, model) for model in raw["fallbacks"])
        raw["limits"] = _without(_LATER_LIMITS, raw["limits"])
        return canonical(_without(_LATER, raw))

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The configuration that `to_json` wrote, an older one's included: what it did not know of
        has its default. Raises ValueError, TypeError or KeyError."""
        raw = json.loads(text)
        git = raw.get("git")
        return cls(
            goal=raw["goal"],
            model=_model(raw["model"]),
            sandbox=_sandbox(raw["sandbox"]),
            context=raw["context"],
            instructions=raw["instructions"],
            files=tuple(File(**file) for file in raw["files"]),
            tools=tuple(raw["tools"]),
            tools_version=raw.get("tools_version", 1),
            transcript_version=raw.get("transcript_version", 1),
            limits=Limits(**raw["limits"]),
            active_deadline_s=raw["active_deadline_s"],
            on_unknown=UnknownPolicy(raw["on_unknown"]),
            completion=Completion(raw["completion"]),
            git=GitSource(**git) if git else None,
            fallbacks=tuple(_model(model) for model in raw.get("fallbacks", [])),
            constraints=tuple(raw.get("constraints", [])),
            rules=tuple(
                Rule(**{**rule, "action": RuleAction(rule["action"])})
                for rule in raw.get("rules", [])
            ),
            images=tuple(ContextImage(**image) for image in raw.get("images", [])),
        )


_LATER: Final = {
    "git": None,
    "tools_version": 1,
    "transcript_version": 1,
    "fallbacks": (),
    "constraints": (),
    "rules": (),
    "images": (),
}
_LATER_MODEL: Final = {
    "namespace": "",
    "headers": (),
    "ca_config_map": "",
    "ca_key": "",
    "first_byte_timeout_s": None,
    "reasoning_effort": "",
    "vision": False,
    "price": None,
    "backoff_first_s": 1.0,
    "backoff_most_s": 60.0,
    "give_up_s": 0.0,
}
_LATER_LIMITS: Final = {"cost": ""}
_LATER_SHAPE: Final = {
    "env": (),
    "node_selector": (),
    "tolerations": (),
    "allow_root": False,
    "read_only_root": False,
    "claim": None,
    "on_loss": OnLoss.RESTART,
    "egress": (),
    "require_enforced_network": False,
}
"""Fields that came after the first journals, and what their absence means."""


def _without(later: Mapping[str, object], raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in later or value != later[name]}


def _model(raw: dict[str, Any]) -> ModelConfig:
    price = raw.get("price")
    return ModelConfig(
        **{
            **raw,
            "engine": Engine(raw["engine"]),
            "headers": _pairs(raw.get("headers", [])),
            "price": Price(**price) if price else None,
        }
    )


def _sandbox(raw: dict[str, Any]) -> SandboxConfig:
    resources, claim = raw["resources"], raw.get("claim")
    return SandboxConfig(
        **{
            **raw,
            "resources": Resources(
                requests=_pairs(resources["requests"]), limits=_pairs(resources["limits"])
            ),
            "pull_secrets": tuple(raw["pull_secrets"]),
            "env": _pairs(raw.get("env", [])),
            "node_selector": _pairs(raw.get("node_selector", [])),
            "tolerations": tuple(Toleration(**one) for one in raw.get("tolerations", [])),
            "claim": _claim(claim) if claim else None,
            "on_loss": OnLoss(raw.get("on_loss", OnLoss.RESTART)),
            "egress": tuple(_egress(rule) for rule in raw.get("egress", [])),
        }
    )


def _claim(raw: dict[str, Any]) -> VolumeClaim:
    return VolumeClaim(**{**raw, "access_mode": AccessMode(raw["access_mode"])})


def _egress(raw: dict[str, Any]) -> EgressRule:
    ports = tuple(EgressPort(**port) for port in raw["ports"])
    return EgressRule(**{**raw, "ports": ports, "except_": tuple(raw["except_"])})


def _pairs(raw: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in raw)
