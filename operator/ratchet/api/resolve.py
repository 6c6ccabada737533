"""One configuration out of a task, its profile, its model endpoint and its sandbox class.

A task's own field wins over its profile's, and the profile's over the class and the defaults. Pure:
the caller reads the objects that ``references`` names, and says so where one of them is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from ratchet.api import names
from ratchet.api.common import Limits, ModelChoice, ModelRetries, SandboxChoice, Tools
from ratchet.api.endpoint import ModelEndpoint, Timeouts
from ratchet.api.git import GitSource
from ratchet.api.profile import AgentProfile, AgentProfileSpec
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.sandboxconfig import sandbox_config, sandbox_problems
from ratchet.api.task import AgentTask, AgentTaskSpec, File, FileMode
from ratchet.api.turn import CONFIG_MAX
from ratchet.core import config as core
from ratchet.core.tools import enabled_tools

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class References:
    """Names of the objects that a task is made of, all in its own namespace."""

    endpoint: str
    sandbox_class: str


@dataclass(frozen=True, slots=True)
class Problems:
    """Why there is no configuration: sentences that say what to change."""

    sentences: tuple[str, ...]


def references(task: AgentTask, profile: AgentProfile | None) -> References:
    """Which ModelEndpoint and SandboxClass a task uses; ``default`` where nobody names one."""
    defaults = _defaults(profile)
    endpoint = _first(_model(task.spec).endpoint_ref, _model(defaults).endpoint_ref)
    sandbox_class = _first(_sandbox(task.spec).class_ref, _sandbox(defaults).class_ref)
    return References(
        endpoint=endpoint.name if endpoint else names.DEFAULT_ENDPOINT,
        sandbox_class=sandbox_class.name if sandbox_class else names.DEFAULT_CLASS,
    )


def resolve(
    task: AgentTask,
    profile: AgentProfile | None,
    *,
    endpoint: ModelEndpoint,
    sandbox_class: SandboxClass,
) -> core.Config | Problems:
    """What the task runs with, or why it cannot run."""
    spec, defaults = task.spec, _defaults(profile)
    config = core.Config(
        goal=spec.goal,
        context=spec.context or "",
        instructions=defaults.instructions or "",
        files=tuple(_file(file) for file in spec.files or ()),
        model=_model_config(spec, defaults, endpoint),
        sandbox=sandbox_config(
            sandbox_class.spec,
            _or(sandbox_class.spec.image, _sandbox(spec).image, _sandbox(defaults).image),
        ),
        tools=_tools(spec, defaults),
        limits=_limits(spec, defaults),
        active_deadline_s=_first(spec.active_deadline_seconds, defaults.active_deadline_seconds),
        on_unknown=_or(
            core.UnknownPolicy.REPORT, spec.on_unknown_outcome, defaults.on_unknown_outcome
        ),
        completion=_or(core.Completion.EXPLICIT, spec.completion, defaults.completion),
        git=_git(spec.git),
    )
    found = _problems(config)
    return Problems(found) if found else config


def _model_config(
    spec: AgentTaskSpec, defaults: AgentProfileSpec, endpoint: ModelEndpoint
) -> core.ModelConfig:
    own, profile, where = _model(spec), _model(defaults), endpoint.spec
    tries, more_tries = _retries(spec), _retries(defaults)
    timeouts = where.timeouts or Timeouts()
    key = where.api_key_secret_ref
    base = core.ModelConfig(endpoint.metadata.name, where.url.rstrip("/"), where.model)
    return core.ModelConfig(
        endpoint=base.endpoint,
        url=base.url,
        model=base.model,
        engine=_or(base.engine, where.engine),
        secret_name=key.name if key else "",
        secret_key=key.key if key else "",
        context_window=where.context_window,
        connect_timeout_s=_or(base.connect_timeout_s, timeouts.connect_seconds),
        total_timeout_s=_or(base.total_timeout_s, timeouts.total_seconds),
        temperature=_first(own.temperature, profile.temperature),
        max_output_tokens=_first(own.max_output_tokens, profile.max_output_tokens),
        seed=_first(own.seed, profile.seed),
        attempts=_or(base.attempts, tries.attempts, more_tries.attempts),
        repairs=_or(base.repairs, tries.repairs, more_tries.repairs),
    )


def _git(given: GitSource | None) -> core.GitSource | None:
    if given is None:
        return None
    return core.GitSource(
        url=given.url,
        ref=given.ref or "",
        secret=given.secret_ref.name if given.secret_ref else "",
        depth=given.depth,
    )


def _tools(spec: AgentTaskSpec, defaults: AgentProfileSpec) -> tuple[str, ...]:
    own, profile = spec.tools or Tools(), defaults.tools or Tools()
    enabled = _or((), own.enabled, profile.enabled)
    disabled = _or((), own.disabled, profile.disabled)
    return enabled_tools(tuple(map(str, enabled)), tuple(map(str, disabled)))


def _limits(spec: AgentTaskSpec, defaults: AgentProfileSpec) -> core.Limits:
    own, profile = spec.limits or Limits(), defaults.limits or Limits()
    return core.Limits(
        turns=_or(core.Limits().turns, own.turns, profile.turns),
        tokens=_first(own.tokens, profile.tokens),
    )


def _file(file: File) -> core.File:
    source = file.config_map_key_ref
    return core.File(
        path=file.path,
        content=file.content,
        config_map=source.name if source else "",
        key=source.key if source else "",
        mode=str(file.mode or FileMode.PLAIN),
    )


def _problems(config: core.Config) -> tuple[str, ...]:
    return (
        *_window(config.model),
        *_nested(config.files),
        *sandbox_problems(config.sandbox),
        *_size(config),
    )


def _window(model: core.ModelConfig) -> tuple[str, ...]:
    most, window = model.max_output_tokens, model.context_window
    if most is None or window is None or most < window:
        return ()
    return (
        f"model.maxOutputTokens ({most}) leaves no room for the request in the contextWindow"
        f" ({window}) of ModelEndpoint {model.endpoint}: lower the first or raise the second.",
    )


def _nested(files: tuple[core.File, ...]) -> tuple[str, ...]:
    paths = {file.path for file in files}
    return tuple(
        f"spec.files has {parent} as a file and, by {path}, as a folder: rename one of the two."
        for path in sorted(paths)
        for parent in _parents(path)
        if parent in paths
    )


def _parents(path: str) -> tuple[str, ...]:
    parts = path.split("/")
    return tuple("/".join(parts[:count]) for count in range(1, len(parts)))


def _size(config: core.Config) -> tuple[str, ...]:
    size = len(config.to_json().encode("utf-8", "replace"))
    if size <= CONFIG_MAX:
        return ()
    return (
        f"goal, context, files and instructions take {size} bytes as JSON, more than the"
        f" {CONFIG_MAX} that a record holds: put files with many control characters into a"
        " ConfigMap.",
    )


def _defaults(profile: AgentProfile | None) -> AgentProfileSpec:
    return profile.spec if profile else AgentProfileSpec()


def _model(spec: AgentTaskSpec | AgentProfileSpec) -> ModelChoice:
    return spec.model or ModelChoice()


def _sandbox(spec: AgentTaskSpec | AgentProfileSpec) -> SandboxChoice:
    return spec.sandbox or SandboxChoice()


def _retries(spec: AgentTaskSpec | AgentProfileSpec) -> ModelRetries:
    return (spec.retry_policy and spec.retry_policy.model) or ModelRetries()


def _first(*values: _T | None) -> _T | None:
    """The first value that is given at all; 0, false and empty lists are given."""
    return next((value for value in values if value is not None), None)


def _or(default: _T, *values: _T | None) -> _T:
    """The first value that is given at all, else ``default``."""
    return next((value for value in values if value is not None), default)
