"""What a task is made of, read from the cluster: its profile, endpoints and class, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import ValidationError

from ratchet.api import names
from ratchet.api.base import Resource
from ratchet.api.endpoint import ANY_NAMESPACE, ModelEndpoint
from ratchet.api.profile import AgentProfile
from ratchet.api.resolve import Problems, references, resolve, rules_of_task
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.task import AgentTask
from ratchet.build import git
from ratchet.core.conditions import Phase, Reason
from ratchet.core.config import Config, ModelConfig, Rule
from ratchet.core.facts import EndpointRef
from ratchet.edges import kube
from ratchet.edges.answers import FAILURES, Meaning, away, find, meaning
from ratchet.edges.kube import ApiError
from ratchet.ports import JournalAway, PortError

_Kind = TypeVar("_Kind", bound=Resource)


RuleProblems = Callable[[Sequence[Rule]], Awaitable[tuple[str, ...]]]
"""What is wrong with rules, in a sentence for each that does not compile.

Raises PortError if they cannot be looked at now: that is no fault of theirs.
"""


async def unchecked(rules: Sequence[Rule]) -> tuple[str, ...]:
    """Takes all rules as they are, for those who have none (RuleProblems)."""
    return ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a task cannot begin. Waiting: what is missing may still come. Failed: it never can."""

    phase: Phase
    reason: Reason
    message: str


class _Stop(Exception):
    """Carries the first trouble out of the steps."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


async def read_config(
    api: kube.Api, task: Mapping[str, Any], rule_problems: RuleProblems = unchecked
) -> Config | Trouble:
    """The configuration that a task begins with, or why it cannot. Raises JournalAway."""
    try:
        return await _read_config(api, _parsed(AgentTask, task), rule_problems)
    except _Stop as stop:
        return stop.trouble


async def _read_config(api: kube.Api, task: AgentTask, rule_problems: RuleProblems) -> Config:
    where = task.metadata.namespace
    profile = None
    if task.spec.profile_ref is not None:
        name = task.spec.profile_ref.name
        profile = await _one(api, AgentProfile, where, name, Reason.PROFILE_NOT_FOUND)
    used = references(task, profile)
    if isinstance(used, Problems):
        raise _unfit(used)
    sandbox_class, endpoints = await asyncio.gather(
        _one(api, SandboxClass, where, used.sandbox_class, Reason.CLASS_NOT_FOUND),
        asyncio.gather(*(_endpoint(api, ref, where) for ref in used.endpoints)),
    )
    config = resolve(task, profile, endpoints=endpoints, sandbox_class=sandbox_class)
    if isinstance(config, Problems):
        raise _unfit(config)
    await _check_rules(task, config, rule_problems)
    await _check_keys(api, where, config)
    return config


async def _check_rules(task: AgentTask, config: Config, rule_problems: RuleProblems) -> None:
    """See that all rules compile. Those of a profile may still be mended, a task's own not."""
    if not config.rules:
        return
    try:
        found = await rule_problems(config.rules)
        own = await rule_problems(rules_of_task(task, config)) if found else ()
    except PortError as error:
        raise JournalAway(
            f"the rules of {task.metadata.name} were not looked at: {error}"
        ) from error
    if found:
        raise _unfit(Problems(found, lasting=bool(own)))


async def _endpoint(api: kube.Api, ref: EndpointRef, where: str) -> ModelEndpoint:
    """The endpoint, for a task of the namespace `where`."""
    if ref.namespace == where:
        return await _one(api, ModelEndpoint, where, ref.name, Reason.ENDPOINT_NOT_FOUND)
    found = await _of_others(api, kube.ours(names.ENDPOINT_PLURAL, ref.namespace, ref.name))
    allowed = ((found or {}).get("spec") or {}).get("allowedNamespaces") or ()
    if found is None or not {where, ANY_NAMESPACE}.intersection(allowed):
        # One sentence for both: nobody learns from it what there is in other namespaces.
        text = (
            f"ModelEndpoint {ref} does not exist, or does not share itself with namespace {where}:"
            f" create it, or add {where} to its allowedNamespaces. An operator that watches some"
            f" namespaces only must watch {ref.namespace}, too."
        )
        raise _missing(Reason.ENDPOINT_NOT_FOUND, text)
    return _parsed(ModelEndpoint, found)


async def _of_others(api: kube.Api, path: str) -> dict[str, Any] | None:
    """The object, None if there is none or the operator may not read there. Raises JournalAway.

    A task's author chooses the namespace, so a refusal is no fault of the operator's: it must not
    look like an API server that is away, for which a task waits without a word.
    """
    try:
        return await api.request("GET", path)
    except FAILURES as failure:
        forbidden = isinstance(failure, ApiError) and failure.status == HTTPStatus.FORBIDDEN
        if forbidden or meaning(failure) is Meaning.GONE:
            return None
        raise away(failure) from failure


async def _check_keys(api: kube.Api, namespace: str, config: Config) -> None:
    """See that the Secrets and the ConfigMaps that are read later are there now."""
    for model in config.endpoints:
        await _check_endpoint(api, model.namespace or namespace, model)
    wanted: dict[str, set[str]] = {}
    for file in config.files:
        if file.config_map:
            wanted.setdefault(file.config_map, set()).add(file.key)
    for name, keys in wanted.items():
        await _has_keys(api, "ConfigMap", namespace, name, keys)
    if config.git is not None and config.git.secret:
        wanted_groups = git.needed_keys(config.git)
        await _has_one_of_each(api, "Secret", namespace, config.git.secret, wanted_groups)


async def _check_endpoint(api: kube.Api, namespace: str, model: ModelConfig) -> None:
    if model.secret_name:
        await _has_keys(api, "Secret", namespace, model.secret_name, {model.secret_key})
    if model.ca_config_map:
        await _has_keys(api, "ConfigMap", namespace, model.ca_config_map, {model.ca_key})


async def _has_keys(api: kube.Api, kind: str, namespace: str, name: str, keys: set[str]) -> None:
    await _has_one_of_each(api, kind, namespace, name, [(key,) for key in sorted(keys)])


async def _has_one_of_each(
    api: kube.Api, kind: str, namespace: str, name: str, groups: Sequence[Sequence[str]]
) -> None:
    """See that the object has of each group of keys at least one."""
    found = await find(api, kube.core(f"{kind.lower()}s", namespace, name))
    reason = Reason.SECRET_NOT_FOUND if kind == "Secret" else Reason.CONFIG_MAP_NOT_FOUND
    if found is None:
        raise _missing(reason, f"{kind} {name} does not exist in namespace {namespace}: create it.")
    there = {*(found.get("data") or ()), *(found.get("binaryData") or ())}
    for group in groups:
        if there.isdisjoint(group):
            keys = " or ".join(group)
            text = f"{kind} {name} in namespace {namespace} has no key {keys}: add it to its data."
            raise _missing(reason, text)


async def _one(
    api: kube.Api, kind: type[_Kind], namespace: str, name: str, reason: Reason
) -> _Kind:
    found = await find(api, kube.ours(kind.KIND.plural, namespace, name))
    if found is None:
        what = f"{kind.__name__} {name} does not exist in namespace {namespace}: create it."
        raise _missing(reason, what)
    return _parsed(kind, found)


def _parsed(kind: type[_Kind], found: Mapping[str, Any]) -> _Kind:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        lasting = kind is AgentTask  # anything else can be mended
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        name = (found.get("metadata") or {}).get("name", "")
        text = (
            f"{kind.__name__} {name}: {field}: {first['msg']}. The CRDs of {names.GROUP} and the"
            " operator may be of different versions."
        )
        raise _unfit(Problems((text,), lasting=lasting)) from error


def _missing(reason: Reason, message: str) -> _Stop:
    return _Stop(Trouble(Phase.WAITING, reason, message))


def _unfit(problems: Problems) -> _Stop:
    phase = Phase.FAILED if problems.lasting else Phase.WAITING
    return _Stop(Trouble(phase, Reason.CONFIG_INVALID, " ".join(problems.sentences)))
