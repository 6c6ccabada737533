"""One configuration out of a task, its profile, its model endpoints and its sandbox class.

A task's own field wins over its profile's, and the profile's over endpoint, class and defaults.
Constraints and rules alone add up, the profile's first: whoever writes a profile with them wants
them kept. Pure: the caller reads the objects that ``references`` names, says so where one of them
is missing, and sees whether the rules compile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ratchet.api import names
from ratchet.api.common import (
    EndpointRef,
    Limits,
    ModelChoice,
    ModelRetries,
    SandboxChoice,
    Tools,
)
from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.endpointproblems import endpoint_problems
from ratchet.api.git import GitSource
from ratchet.api.images import image_problems
from ratchet.api.modelconfig import model_config, model_problems
from ratchet.api.policy import CONSTRAINTS_MAX, RULES_MAX, Policy, PolicyRule
from ratchet.api.precedence import first, first_or
from ratchet.api.profile import AgentProfile, AgentProfileSpec
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.sandboxconfig import sandbox_config, sandbox_problems
from ratchet.api.task import AgentTask, AgentTaskSpec, File, FileMode
from ratchet.api.turn import CONFIG_MAX
from ratchet.core import config as core
from ratchet.core import facts
from ratchet.core.tools import enabled_tools


@dataclass(frozen=True, slots=True)
class References:
    """Names of the objects that a task is made of, besides its profile."""

    endpoints: tuple[facts.EndpointRef, ...]
    """In the order in which they are asked; one at least."""
    sandbox_class: str
    """In the task's own namespace."""


@dataclass(frozen=True, slots=True)
class Problems:
    """Why there is no configuration: sentences that say what to change.

    `lasting`: the task alone is wrong in one of them, and it is immutable. Otherwise an edit of its
    profile or its endpoints lets it begin.
    """

    sentences: tuple[str, ...]
    lasting: bool = True


def references(task: AgentTask, profile: AgentProfile | None) -> References | Problems:
    """Which ModelEndpoints and SandboxClass a task uses; ``default`` where nobody names one.

    Problems where an endpoint would be asked twice: there is no use in falling back on what has
    failed. The CRD refuses that within one object; this is about task and profile together.
    """
    own, defaults = _model(task.spec), _model(_defaults(profile))
    asked = first_or(
        EndpointRef(name=names.DEFAULT_ENDPOINT), own.endpoint_ref, defaults.endpoint_ref
    )
    fallbacks = first_or((), own.fallbacks, defaults.fallbacks)
    endpoints = tuple(
        facts.EndpointRef(ref.namespace or task.metadata.namespace, ref.name)
        for ref in (asked, *fallbacks)
    )
    again = sorted({str(ref) for ref in endpoints if endpoints.count(ref) > 1})
    if again:
        given = (defaults.endpoint_ref, defaults.fallbacks)
        return Problems(_loops(again), lasting=all(value is None for value in given))
    sandbox_class = first(_sandbox(task.spec).class_ref, _sandbox(_defaults(profile)).class_ref)
    return References(endpoints, sandbox_class.name if sandbox_class else names.DEFAULT_CLASS)


def _loops(again: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"model.fallbacks leads back to ModelEndpoint {ref}, which was asked before (endpointRef and"
        " fallbacks of task and profile together): take it out of fallbacks, or give the task"
        " fallbacks of its own."
        for ref in again
    )


def resolve(
    task: AgentTask,
    profile: AgentProfile | None,
    *,
    endpoints: Sequence[ModelEndpoint],
    sandbox_class: SandboxClass,
) -> core.Config | Problems:
    """What the task runs with, or why it cannot run. `endpoints` are those of `references`."""
    spec, defaults = task.spec, _defaults(profile)
    model, *fallbacks = map(_model_config(task, defaults), endpoints)
    config = core.Config(
        goal=spec.goal,
        context=spec.context or "",
        instructions=defaults.instructions or "",
        files=tuple(_file(file) for file in spec.files or ()),
        model=model,
        fallbacks=tuple(fallbacks),
        sandbox=sandbox_config(
            sandbox_class.spec,
            first_or(sandbox_class.spec.image, _sandbox(spec).image, _sandbox(defaults).image),
        ),
        tools=_tools(spec, defaults),
        limits=_limits(spec, defaults),
        active_deadline_s=first(spec.active_deadline_seconds, defaults.active_deadline_seconds),
        on_unknown=first_or(
            core.UnknownPolicy.REPORT, spec.on_unknown_outcome, defaults.on_unknown_outcome
        ),
        completion=first_or(core.Completion.EXPLICIT, spec.completion, defaults.completion),
        git=_git(spec.git),
        constraints=(*(defaults.constraints or ()), *(spec.constraints or ())),
        rules=tuple(_rule(rule) for rule in (*_rules(defaults), *_rules(spec))),
        images=tuple(
            core.ContextImage(str(image.media_type), image.data)
            for image in spec.context_images or ()
        ),
    )
    lasting = _lasting(config)
    found = (*lasting, *_mendable(config, endpoints))
    return Problems(found, lasting=bool(lasting)) if found else config


def rules_of_task(task: AgentTask, config: core.Config) -> tuple[core.Rule, ...]:
    """Those of the configuration's rules that are the task's own and so cannot be mended."""
    return config.rules[len(config.rules) - len(_rules(task.spec)) :]


def _model_config(task: AgentTask, defaults: AgentProfileSpec) -> partial[core.ModelConfig]:
    return partial(
        model_config,
        namespace=task.metadata.namespace,
        choices=(_model(task.spec), _model(defaults)),
        retries=(_retries(task.spec), _retries(defaults)),
    )


def _rules(spec: AgentTaskSpec | AgentProfileSpec) -> tuple[PolicyRule, ...]:
    return (spec.policy or Policy()).rules or ()


def _rule(given: PolicyRule) -> core.Rule:
    return core.Rule(given.name, given.when, given.action, given.message or "")


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
    enabled = first_or((), own.enabled, profile.enabled)
    disabled = first_or((), own.disabled, profile.disabled)
    return enabled_tools(tuple(map(str, enabled)), tuple(map(str, disabled)))


def _limits(spec: AgentTaskSpec, defaults: AgentProfileSpec) -> core.Limits:
    own, profile = spec.limits or Limits(), defaults.limits or Limits()
    return core.Limits(
        turns=first_or(core.Limits().turns, own.turns, profile.turns),
        tokens=first(own.tokens, profile.tokens),
        cost=first_or("", own.cost, profile.cost),
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


def _lasting(config: core.Config) -> tuple[str, ...]:
    return (
        *_nested(config.files),
        *image_problems(config.images),
        *sandbox_problems(config.sandbox),
        *_size(config),
    )


def _mendable(config: core.Config, endpoints: Sequence[ModelEndpoint]) -> tuple[str, ...]:
    return (
        *(
            f"ModelEndpoint {endpoint.metadata.name}: {problem}"
            for endpoint in endpoints
            for problem in endpoint_problems(endpoint.spec)
        ),
        *model_problems(config),
        *_too_many("constraints", len(config.constraints), CONSTRAINTS_MAX),
        *_too_many("policy.rules", len(config.rules), RULES_MAX),
    )


def _too_many(field: str, count: int, most: int) -> tuple[str, ...]:
    if count <= most:
        return ()
    return (f"{field} of task and profile are {count} together, more than {most}: remove some.",)


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
