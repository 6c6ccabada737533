"""Who the commands of the model are in their container, and what they find there.

The runner and the commands share a container. What a class says about the commands' environment
must not reach the runner's own Python, so it comes under other names and is renamed by the runner.
"""

from __future__ import annotations

from typing import Any

from ratchet.build import paths
from ratchet.build.generation import Manifest
from ratchet.core.config import SandboxConfig, Toleration

ENV_PREFIX = "RATCHET_ENV_"
"""What the names of the commands' variables start with in the container's environment."""
ROOTS_NAME = (("USER", "root"), ("LOGNAME", "root"))
DROPPED = ("MKNOD", "NET_RAW")
"""Of the runtime's default capabilities, what no package manager needs: devices, and packets of its
own making, with which the traffic of the pod's other container could be read and forged."""


def identity(config: SandboxConfig) -> Manifest:
    """The security context of the shell container."""
    common: dict[str, Any] = {
        "readOnlyRootFilesystem": config.read_only_root,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if config.allow_root:
        return {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": True,
            "capabilities": {"drop": list(DROPPED)},
            **common,
        }
    return {
        "runAsUser": paths.RUNNER_UID,
        "runAsGroup": paths.RUNNER_UID,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        **common,
    }


def environment(config: SandboxConfig) -> list[Manifest]:
    """The commands' variables. A doubled $ is one: Kubernetes takes $(NAME) for a reference."""
    given = dict((*(ROOTS_NAME if config.allow_root else ()), *config.env))
    return [
        {"name": f"{ENV_PREFIX}{name}", "value": value.replace("$", "$$")}
        for name, value in given.items()
    ]


def mounts(config: SandboxConfig) -> list[Manifest]:
    """Beside workspace and runtime: the names of users, and a place to write.

    Nobody but the image knows which users it has, and most have none with the shell's uid. Without
    a name ssh, initdb and others end at once, so all images get the same list of users. Root has a
    name everywhere, and must be able to add users.
    """
    found: list[Manifest] = []
    if not config.allow_root:
        found.append(
            {
                "name": "runtime",
                "mountPath": "/etc/passwd",
                "subPath": paths.PASSWD,
                "readOnly": True,
            }
        )
    if config.read_only_root:
        found.append({"name": "tmp", "mountPath": "/tmp"})
    return found


def volumes(config: SandboxConfig) -> list[Manifest]:
    """What `mounts` needs that the pod would not have without."""
    return [{"name": "tmp", "emptyDir": {}}] if config.read_only_root else []


def placement(config: SandboxConfig) -> Manifest:
    """The fields of the pod that say which nodes take it."""
    spec: Manifest = {}
    if config.node_selector:
        spec["nodeSelector"] = dict(config.node_selector)
    if config.tolerations:
        spec["tolerations"] = [_toleration(one) for one in config.tolerations]
    return spec


def _toleration(one: Toleration) -> Manifest:
    given = {"key": one.key, "operator": one.operator, "value": one.value, "effect": one.effect}
    told: Manifest = {name: text for name, text in given.items() if text}
    return told if one.seconds is None else {**told, "tolerationSeconds": one.seconds}
