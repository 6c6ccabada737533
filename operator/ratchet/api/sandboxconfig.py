"""The sandbox's part of a task's configuration, out of its SandboxClass. Pure."""

from __future__ import annotations

import re

from ratchet.api.egress import EgressRule, EgressService, Protocol
from ratchet.api.placement import LABEL_KEY, Toleration
from ratchet.api.sandboxclass import ResourceList, SandboxClassSpec, VolumeClaim, Workspace
from ratchet.api.sandboxclass import Resources as ClassResources
from ratchet.core import config as core


def sandbox_config(shape: SandboxClassSpec, image: str) -> core.SandboxConfig:
    """What the pods look like, with `image` as the image of the shell."""
    resources = shape.resources or ClassResources()
    workspace = shape.workspace or Workspace()
    base = core.SandboxConfig(image)
    return core.SandboxConfig(
        image=image,
        resources=core.Resources(
            requests=_amounts(resources.requests), limits=_amounts(resources.limits)
        ),
        runtime_class=shape.runtime_class_name or "",
        pull_secrets=tuple(ref.name for ref in shape.image_pull_secrets or ()),
        workspace_size_limit=workspace.size_limit or base.workspace_size_limit,
        hard_timeout_s=shape.hard_timeout_seconds or base.hard_timeout_s,
        env=tuple((variable.name, variable.value) for variable in shape.env or ()),
        node_selector=tuple(sorted((shape.node_selector or {}).items())),
        tolerations=tuple(_toleration(given) for given in shape.tolerations or ()),
        allow_root=bool(shape.allow_root),
        read_only_root=bool(shape.read_only_root),
        claim=_claim(workspace.volume_claim),
        on_loss=workspace.on_loss or base.on_loss,
        egress=tuple(_egress(rule) for rule in shape.egress or ()),
        require_enforced_network=bool(shape.require_enforced_network),
    )


def sandbox_problems(config: core.SandboxConfig) -> tuple[str, ...]:
    """What is wrong with a class in ways that its CRD cannot say: keys of maps have no pattern."""
    return tuple(
        f"nodeSelector of the SandboxClass has the key {key!r}, which is no key of a label: write"
        " it like kubernetes.io/arch."
        for key, _ in config.node_selector
        if not re.fullmatch(LABEL_KEY, key)
    )


def _amounts(listed: ResourceList | None) -> tuple[tuple[str, str], ...]:
    given = (listed or ResourceList()).model_dump(by_alias=True, exclude_none=True)
    return tuple(given.items())


def _toleration(given: Toleration) -> core.Toleration:
    return core.Toleration(
        key=given.key or "",
        operator=str(given.operator or ""),
        value=given.value or "",
        effect=str(given.effect or ""),
        seconds=given.toleration_seconds,
    )


def _claim(given: VolumeClaim | None) -> core.VolumeClaim | None:
    if given is None:
        return None
    return core.VolumeClaim(
        size=given.size,
        storage_class=given.storage_class_name or "",
        access_mode=given.access_mode or core.AccessMode.READ_WRITE_ONCE,
    )


def _egress(rule: EgressRule) -> core.EgressRule:
    service = rule.service or EgressService.model_construct(name="", namespace=None)
    return core.EgressRule(
        ports=tuple(
            core.EgressPort(port=one.port, protocol=str(one.protocol or Protocol.TCP))
            for one in rule.ports
        ),
        cidr=rule.cidr or "",
        except_=rule.except_ or (),
        service=service.name,
        namespace=service.namespace or "",
        host=rule.host or "",
    )
