"""What a task is made of, read from the cluster: its profile, endpoint and class, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from ratchet.api import names
from ratchet.api.base import Resource
from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.profile import AgentProfile
from ratchet.api.resolve import Problems, references, resolve
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.task import AgentTask
from ratchet.build import git
from ratchet.core.conditions import Phase, Reason
from ratchet.core.config import Config
from ratchet.edges import kube
from ratchet.edges.answers import find

_Kind = TypeVar("_Kind", bound=Resource)


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


async def read_config(api: kube.Api, task: Mapping[str, Any]) -> Config | Trouble:
    """The configuration that a task begins with, or why it cannot. Raises JournalAway."""
    try:
        return await _read_config(api, _parsed(AgentTask, task))
    except _Stop as stop:
        return stop.trouble


async def _read_config(api: kube.Api, task: AgentTask) -> Config | Trouble:
    where = task.metadata.namespace
    profile = None
    if task.spec.profile_ref is not None:
        name = task.spec.profile_ref.name
        profile = await _one(api, AgentProfile, where, name, Reason.PROFILE_NOT_FOUND)
    used = references(task, profile)
    endpoint, sandbox_class = await asyncio.gather(
        _one(api, ModelEndpoint, where, used.endpoint, Reason.ENDPOINT_NOT_FOUND),
        _one(api, SandboxClass, where, used.sandbox_class, Reason.CLASS_NOT_FOUND),
    )
    config = resolve(task, profile, endpoint=endpoint, sandbox_class=sandbox_class)
    if isinstance(config, Problems):
        return _invalid(" ".join(config.sentences))
    await _check_keys(api, where, config)
    return config


async def _check_keys(api: kube.Api, namespace: str, config: Config) -> None:
    """See that the Secret and the ConfigMaps that are read later are there now."""
    if config.model.secret_name:
        keys = {config.model.secret_key}
        await _has_keys(api, "Secret", namespace, config.model.secret_name, keys)
    wanted: dict[str, set[str]] = {}
    for file in config.files:
        if file.config_map:
            wanted.setdefault(file.config_map, set()).add(file.key)
    for name, keys in wanted.items():
        await _has_keys(api, "ConfigMap", namespace, name, keys)
    if config.git is not None and config.git.secret:
        wanted_groups = git.needed_keys(config.git)
        await _has_one_of_each(api, "Secret", namespace, config.git.secret, wanted_groups)


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
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        name = (found.get("metadata") or {}).get("name", "")
        text = (
            f"{kind.__name__} {name}: {field}: {first['msg']}. The CRDs of {names.GROUP} and the"
            " operator may be of different versions."
        )
        raise _Stop(_invalid(text)) from error


def _missing(reason: Reason, message: str) -> _Stop:
    return _Stop(Trouble(Phase.WAITING, reason, message))


def _invalid(message: str) -> Trouble:
    return Trouble(Phase.FAILED, Reason.CONFIG_INVALID, message)
