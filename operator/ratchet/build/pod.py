"""The pod of a sandbox: a server that keeps the ledger, a shell that does the work.

Both share the workspace's pod and nothing else that matters: other uids, other mounts, no shared
process namespace. Nothing in it can reach the Kubernetes API. It passes the Pod Security Standard
"restricted", and "baseline" where its class allows root.
"""

from __future__ import annotations

from typing import Any

from ratchet.build import bundle, paths, shell
from ratchet.build.egress import CLOSED, Egress, denied_targets, needs_dns
from ratchet.build.generation import Generation, Manifest
from ratchet.build.resources import shell_resources
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import SandboxConfig

PREPARE = "prepare"
SERVER = "server"
SHELL = "shell"
CLAIM = "claim"
"""The volume that holds workspace and ledger where the class has a volumeClaim."""
GRACE_S = 5
"""PID 1 of each container handles SIGTERM; nothing in a pod is worth a longer wait."""
NO_DNS = {
    "nameservers": ["127.0.0.1"],
    "options": [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "1"}],
}
"""The network policy lets no query out. Asking a closed port of the pod's own fails at once, where
the cluster's DNS would be waited for; and where no plugin enforces policies, it tells nothing."""
AS_WRITTEN = {"options": [{"name": "ndots", "value": "1"}]}
"""Names with a dot are asked for as they are first. With the cluster's usual five, the first question
for a host would be for one below the cluster's domain, and the policy refuses to have that asked."""


def sandbox_pod(
    generation: Generation,
    config: SandboxConfig,
    settings: SandboxSettings,
    egress: Egress = CLOSED,
) -> Manifest:
    """The pod of one generation. Raises ValueError for a resource amount that is no quantity."""
    spec: dict[str, Any] = {
        "restartPolicy": "Always",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostname": "sandbox",
        **_dns(egress),
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": paths.SHARED_GID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_prepare(generation, config, settings)],
        "containers": [
            _server(generation, config, settings, denied_targets(settings, egress)),
            _shell(generation, config, settings),
        ],
        "volumes": [*_volumes(generation, config), *bundle.volumes(settings)],
    }
    spec |= shell.placement(config)
    if config.runtime_class:
        spec["runtimeClassName"] = config.runtime_class
    if config.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in config.pull_secrets]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": generation.pod_metadata(), "spec": spec}


def _dns(egress: Egress) -> Manifest:
    if not needs_dns(egress.rules):
        return {"dnsPolicy": "None", "dnsConfig": NO_DNS}
    return {"dnsPolicy": "ClusterFirst"} | ({"dnsConfig": AS_WRITTEN} if egress.hosts else {})


def _prepare(generation: Generation, config: SandboxConfig, settings: SandboxSettings) -> Manifest:
    claimed = config.claim is not None
    environment = [{"name": "RATCHET_KEPT", "value": paths.KEPT}] if claimed else []
    kept = [_kept(config, "kept", paths.KEPT)] if claimed else []
    return {
        "name": PREPARE,
        "image": settings.runner_image,
        "imagePullPolicy": settings.pull_policy,
        "command": [*paths.PREPARE, *bundle.options(settings)],
        "env": [_task_uid(generation), *environment],
        "resources": {
            "requests": {"cpu": "10m", "memory": "48Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": _confined(paths.RUNNER_UID),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            _mount("runtime", paths.RUNTIME),
            _kept(config, "workspace", paths.WORKSPACE),
            *kept,
            *bundle.mounts(settings),
            _mount("files", paths.FILES, read_only=True),
        ],
    }


def _server(
    generation: Generation,
    config: SandboxConfig,
    settings: SandboxSettings,
    probe_targets: tuple[str, ...],
) -> Manifest:
    targets = {"name": "RATCHET_PROBE_TARGETS", "value": ",".join(probe_targets)}
    return {
        "name": SERVER,
        "image": settings.server_image,
        "imagePullPolicy": settings.pull_policy,
        "command": list(paths.SERVER),
        "env": [_task_uid(generation), *([targets] if probe_targets else [])],
        "ports": [{"name": "https", "containerPort": paths.HTTPS_PORT, "protocol": "TCP"}],
        # Says ready only while a runner is connected, so the pod's Ready means both containers.
        "readinessProbe": {
            "httpGet": {"path": "/v1/health", "port": paths.HTTPS_PORT, "scheme": "HTTPS"},
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "48Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": _confined(paths.SERVER_UID),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            _mount("secret", paths.SECRET, read_only=True),
            _kept(config, "ledger", paths.LEDGER),
            _mount("control", paths.CONTROL),
        ],
    }


def _shell(generation: Generation, config: SandboxConfig, settings: SandboxSettings) -> Manifest:
    return {
        "name": SHELL,
        "image": config.image,
        "imagePullPolicy": settings.pull_policy,
        "command": list(paths.RUNNER),
        "workingDir": paths.WORKSPACE,
        "env": [
            _task_uid(generation),
            {"name": "RATCHET_HARD_TIMEOUT_S", "value": str(config.hard_timeout_s)},
            {"name": "PYTHONHOME", "value": paths.RUNTIME},
            *shell.environment(config),
        ],
        "resources": shell_resources(config.resources, settings),
        "securityContext": shell.identity(config),
        "volumeMounts": [
            _mount("runtime", paths.RUNTIME, read_only=True),
            _kept(config, "workspace", paths.WORKSPACE),
            _mount("control", paths.CONTROL, read_only=True),
            *shell.mounts(config),
            *bundle.mounts(settings),
        ],
    }


def _volumes(generation: Generation, config: SandboxConfig) -> list[Manifest]:
    claim: Manifest = {}
    if config.claim:
        claim = {"name": CLAIM, "persistentVolumeClaim": {"claimName": generation.claim_name}}
    return [
        {"name": "runtime", "emptyDir": {}},
        claim or {"name": "workspace", "emptyDir": {"sizeLimit": config.workspace_size_limit}},
        {"name": "control", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        *([] if claim else [{"name": "ledger", "emptyDir": {"sizeLimit": "1Gi"}}]),
        # Mode 0440: the server reads it by the volume's group; no other container mounts it.
        {"name": "secret", "secret": {"secretName": generation.name, "defaultMode": 0o440}},
        {"name": "files", "configMap": {"name": generation.name}},
        *shell.volumes(config),
    ]


def _confined(uid: int) -> Manifest:
    return {
        "runAsUser": uid,
        "runAsGroup": uid,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _task_uid(generation: Generation) -> Manifest:
    return {"name": "RATCHET_TASK_UID", "value": generation.task_uid}


def _kept(config: SandboxConfig, name: str, path: str) -> Manifest:
    """The mount of workspace or ledger: a volume of its own, or a folder of the claim, whose root no
    container sees."""
    return {**_mount(CLAIM, path), "subPath": name} if config.claim else _mount(name, path)


def _mount(name: str, path: str, *, read_only: bool = False) -> Manifest:
    mount: Manifest = {"name": name, "mountPath": path}
    return {**mount, "readOnly": True} if read_only else mount
