"""What a task waits for before it begins: the Secret of its repository."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.api import names
from ratchet.core.conditions import Phase, Reason
from ratchet.core.config import Config
from ratchet.edges import kube
from ratchet.edges.resolving import Trouble, read_config

from tests.unit.edges.test_patches import MemoryApi

NAMESPACE = "team-a"


async def read(url: str, keys: dict[str, str] | None, *, named: bool = True) -> Config | Trouble:
    """The configuration of a task with this repository, where its Secret has these keys."""
    api = MemoryApi()

    def put(path: str, kind: str, name: str, **parts: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": NAMESPACE}
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, **parts}
        return api.server.put(path, body)

    endpoint = {"url": "http://model/v1", "model": "m"}
    where = kube.ours(names.ENDPOINT_PLURAL, NAMESPACE, "default")
    put(where, names.ENDPOINT_KIND, "default", spec=endpoint)
    where = kube.ours(names.CLASS_PLURAL, NAMESPACE, "default")
    put(where, names.CLASS_KIND, "default", spec={"image": "debian:12"})
    if keys is not None:
        put(kube.core("secrets", NAMESPACE, "git-cred"), "Secret", "git-cred", data=keys)
    git = {"url": url, **({"secretRef": {"name": "git-cred"}} if named else {})}
    spec = {"goal": "g", "git": git}
    task = put(kube.task(NAMESPACE, "fix-it"), names.TASK_KIND, "fix-it", spec=spec)
    return await read_config(api, task)


HTTPS, SSH = "https://git.example.com/x.git", "ssh://git@git.example.com/x.git"


@pytest.mark.parametrize(
    ("url", "keys", "says"),
    [
        (HTTPS, None, "Secret git-cred does not exist in namespace team-a: create it."),
        (HTTPS, {"username": ""}, "has no key password or token or ca.crt: add it"),
        (SSH, {"token": ""}, "has no key ssh-privatekey: add it"),
        (SSH, {"ssh-privatekey": ""}, "has no key known_hosts: add it"),
    ],
)
async def test_a_task_waits_for_the_secret_of_its_repository(
    url: str, keys: dict[str, str] | None, says: str
) -> None:
    found = await read(url, keys)
    assert isinstance(found, Trouble)
    assert (found.phase, found.reason) == (Phase.WAITING, Reason.SECRET_NOT_FOUND)
    assert says in found.message


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        (HTTPS, {"password": ""}),
        (HTTPS, {"token": ""}),
        (HTTPS, {"ca.crt": ""}),
        (SSH, {"ssh-privatekey": "", "known_hosts": ""}),
    ],
)
async def test_with_what_its_protocol_needs_it_begins(url: str, keys: dict[str, str]) -> None:
    found = await read(url, keys)
    assert isinstance(found, Config) and found.git and found.git.secret == "git-cred"


async def test_without_a_secret_it_waits_for_none() -> None:
    found = await read(HTTPS, None, named=False)
    assert isinstance(found, Config) and found.git and found.git.secret == ""
