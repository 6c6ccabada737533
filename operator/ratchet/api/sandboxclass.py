"""SandboxClass: what the pod of a sandbox looks like."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api import names
from ratchet.api.base import AGE, Column, Image, Kind, Model, Name, Quantity, Resource, listed
from ratchet.api.common import NameRef


class ResourceList(Model):
    """Amounts of CPU, memory and disk of the shell container."""

    cpu: Quantity | None = None
    """CPU cores, such as 500m or 2. Default: the operator's settings."""
    memory: Quantity | None = None
    """Memory in bytes, such as 512Mi or 2Gi. Default: the operator's settings."""
    ephemeral_storage: Annotated[Quantity | None, Field(alias="ephemeral-storage")] = None
    """Disk in bytes outside of the workspace volume, such as 1Gi. Default: the operator's
    settings."""


class Resources(Model):
    """What the shell container asks for and may use."""

    requests: ResourceList | None = None
    """What a node must have free for the sandbox. Default: the operator's settings."""
    limits: ResourceList | None = None
    """What the sandbox may use at most. Default: the operator's settings."""


class Workspace(Model):
    """The volume that the task works in."""

    size_limit: Quantity | None = None
    """Most bytes of the workspace, such as 2Gi; a sandbox that writes more is evicted. Default:
    2Gi."""


class SandboxClassSpec(Model):
    """What the pod looks like. A running task keeps what it started with."""

    image: Image
    """Container image of the shell that runs the commands, unless the task or its profile names
    another; any Linux image with a shell. Required. Mutable."""
    resources: Resources | None = None
    """CPU, memory and disk of the shell container. Default: the operator's settings. Mutable."""
    runtime_class_name: Name | None = None
    """The RuntimeClass of the pod, such as gvisor. Default: the cluster's own runtime. Mutable."""
    image_pull_secrets: (
        Annotated[tuple[NameRef, ...], listed("map", most=8, keys=("name",))] | None
    ) = None
    """Secrets of the same namespace with the credentials of image registries, at most 8. Default:
    none. Mutable."""
    workspace: Workspace | None = None
    """The volume that the task works in. Default: one of 2Gi. Mutable."""
    hard_timeout_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    """Seconds after which a command and all that it started are killed, 1 to 3,600. Default: 300.
    Mutable."""


class SandboxClass(Resource):
    """SandboxClass says what the pod of a sandbox looks like. A task without a classRef uses the
    one named "default"."""

    KIND: ClassVar[Kind] = Kind(
        plural=names.CLASS_PLURAL,
        columns=(
            Column(name="IMAGE", path=".spec.image", description="Image of the shell."),
            Column(name="RUNTIME", path=".spec.runtimeClassName", description="The RuntimeClass."),
            AGE,
        ),
    )

    spec: SandboxClassSpec
    """What the pod looks like. Mutable; running tasks keep what they started with."""
