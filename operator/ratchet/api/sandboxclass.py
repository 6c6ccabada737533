"""SandboxClass: what the pod of a sandbox looks like."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api import names
from ratchet.api.base import (
    AGE,
    Column,
    Image,
    Kind,
    Model,
    Name,
    Quantity,
    Resource,
    Rule,
    chars,
    listed,
)
from ratchet.api.common import NameRef
from ratchet.api.egress import EgressRule
from ratchet.api.placement import LabelValue, Toleration
from ratchet.core.config import AccessMode, OnLoss


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


class EnvVar(Model):
    """A variable of the shell's environment."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule=(
                "!self.name.startsWith('RATCHET_') && !self.name.startsWith('LD_')"
                " && !self.name.startsWith('PYTHONHOME')"
            ),
            message=(
                "names that start with RATCHET_, LD_ or PYTHONHOME are the sandbox's own: choose"
                " another name, or export it in a command"
            ),
            field=".name",
        ),
    )

    name: Annotated[str, chars(128, least=1, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Name of the variable: letters, digits and underscores. Each name once; none that starts with
    RATCHET_, LD_ or PYTHONHOME. Required."""
    value: Annotated[str, chars(4096, pattern=r"^[^\x00]*$")]
    """Its value as it is, up to 4,096 characters. The model reads it: never a secret. Required."""


class VolumeClaim(Model):
    """The PersistentVolumeClaim that is made for each task."""

    storage_class_name: Name | None = None
    """The StorageClass. Default: the cluster's own."""
    size: Quantity
    """Bytes to ask for, such as 5Gi. Required."""
    access_mode: AccessMode | None = None
    """ReadWriteOnce, or ReadWriteOncePod where the storage offers it. Default: ReadWriteOnce."""


class Workspace(Model):
    """The volume that the task works in."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="!has(self.sizeLimit) || !has(self.volumeClaim)",
            message="a workspace on a volumeClaim has the claim's size: take sizeLimit out",
            field=".sizeLimit",
        ),
    )

    size_limit: Quantity | None = None
    """Most bytes of a workspace on the node's disk, such as 2Gi; a sandbox that writes more is
    evicted. Not together with volumeClaim. Default: 2Gi."""
    on_loss: OnLoss | None = None
    """What to do when pod and workspace are lost: Restart makes a new sandbox from the task's
    start files and tells the model what was lost, Fail ends the task with reason SandboxLost.
    Default: Restart. Mutable."""
    volume_claim: VolumeClaim | None = None
    """Keeps the workspace on a PersistentVolumeClaim of the task, which outlives pod and node and
    is removed with the task. Default: none, a volume on the node's disk that ends with the pod.
    Mutable."""


class SandboxClassSpec(Model):
    """What the pod looks like. A running task keeps what it started with."""

    image: Image
    """Container image of the shell that runs the commands, unless the task or its profile names
    another; any Linux image with a shell. Required. Mutable."""
    resources: Resources | None = None
    """CPU, memory and disk of the shell container. Default: the operator's settings. Mutable."""
    env: Annotated[tuple[EnvVar, ...], listed("map", most=64, keys=("name",))] | None = None
    """Variables of the commands' environment, at most 64, over those of the image. Default: none.
    Mutable."""
    runtime_class_name: Name | None = None
    """The RuntimeClass of the pod, such as gvisor. Default: the cluster's own runtime. Mutable."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """Labels that a node must have to take the pod, at most 32. Default: none. Mutable."""
    tolerations: Annotated[tuple[Toleration, ...], listed("atomic", most=16)] | None = None
    """Taints of nodes that the pod accepts, at most 16. Default: none. Mutable."""
    allow_root: bool | None = None
    """true: commands run as root of the shell container, with the runtime's default capabilities,
    so that package managers work. Such a pod passes the Pod Security Standard "baseline" and not
    "restricted". Default: false. Mutable."""
    read_only_root: bool | None = None
    """true: the root file system of the shell container is read-only; the workspace and /tmp stay
    writable. Default: false. Mutable."""
    image_pull_secrets: (
        Annotated[tuple[NameRef, ...], listed("map", most=8, keys=("name",))] | None
    ) = None
    """Secrets of the same namespace with the credentials of image registries, at most 8. Default:
    none. Mutable."""
    workspace: Workspace | None = None
    """The volume that the task works in. Default: one of 2Gi on the node's disk. Mutable."""
    egress: Annotated[tuple[EgressRule, ...], listed("atomic", most=32)] | None = None
    """Where the sandbox may connect to, at most 32 destinations; everything else stays closed, and
    nobody but the operator gets in. Default: nowhere. Mutable."""
    require_enforced_network: bool | None = None
    """true: no call runs before the sandbox has seen that the network policy holds; a task whose
    policy is ignored, or about which nothing can be said, ends with reason NetworkNotEnforced.
    false: condition NetworkEnforced says it and the task goes on. Default: false. Mutable."""
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
