"""The init container that clones a task's repository, the only one with the credential for it."""

from __future__ import annotations

from typing import Any

from ratchet.build import paths
from ratchet.build.generation import Manifest
from ratchet.build.pod import PREPARE
from ratchet.build.resources import quantity
from ratchet.core.config import GitSource, SandboxConfig

CLONE = "clone"
LASTING = 2
"""Its exit code where cloning fails until somebody changes something; any other failure may pass."""
KEYS = ("username", "password", "token", "ssh-privatekey", "known_hosts", "ca.crt")
"""Keys of the Secret that are mounted; no other key of it is."""
SHARE = 0.75
"""Part of the workspace that history and files may take together: some room is left to work in."""


def needed_keys(source: GitSource) -> tuple[tuple[str, ...], ...]:
    """What a Secret for this URL must have: of each group one key."""
    if source.url.startswith("ssh:"):
        return (("ssh-privatekey",), ("known_hosts",))
    return (("password", "token", "ca.crt"),)


def with_clone(pod: Manifest, source: GitSource, config: SandboxConfig) -> Manifest:
    """A sandbox pod whose workspace starts from this repository.

    Raises ValueError for a size of the workspace that is no quantity.
    """
    spec = pod["spec"]
    prepare = next(one for one in spec["initContainers"] if one["name"] == PREPARE)
    others = [one for one in spec["initContainers"] if one is not prepare]
    cloned = {**prepare, "command": [*prepare["command"], "--cloned"]}
    containers = [*others, _container(prepare, source, config), cloned]
    volumes = [*spec["volumes"], *_volumes(source)]
    return {**pod, "spec": {**spec, "initContainers": containers, "volumes": volumes}}


def _container(prepare: Manifest, source: GitSource, config: SandboxConfig) -> Manifest:
    """It sees what `prepare` sees, but not the start files; and `prepare` never sees the Secret."""
    mounts: list[dict[str, Any]] = [
        one for one in prepare["volumeMounts"] if one["name"] != "files"
    ]
    mounts.append({"name": "clone", "mountPath": paths.GIT_SCRATCH})
    if source.secret:
        mounts.append({"name": "git", "mountPath": paths.GIT_SECRET, "readOnly": True})
    return {
        **prepare,
        "name": CLONE,
        "command": [*paths.CLONE, *_options(source, config)],
        "resources": {
            "requests": {"cpu": "10m", "memory": "48Mi"},
            "limits": {"memory": "1Gi"},
        },
        "volumeMounts": mounts,
    }


def _options(source: GitSource, config: SandboxConfig) -> list[str]:
    size = config.claim.size if config.claim else config.workspace_size_limit
    given = {
        "url": source.url,
        "ref": source.ref,
        "depth": source.depth or "",
        "secret-name": source.secret,
        "bytes": int(float(quantity(size)) * SHARE),
    }
    return [f"--{name}={value}" for name, value in given.items() if value]


def _volumes(source: GitSource) -> list[Manifest]:
    scratch = {"name": "clone", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    if not source.secret:
        return [scratch]
    items = [{"key": key, "path": key} for key in KEYS]
    # Optional: a Secret has some of these keys only. Which it must have is seen at the claim.
    secret = {
        "secretName": source.secret, "defaultMode": 0o440, "items": items, "optional": True
    }  # fmt: skip
    return [scratch, {"name": "git", "secret": secret}]
