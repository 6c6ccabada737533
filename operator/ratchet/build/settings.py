"""What the operator's installation says about every sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field

from ratchet.api import names

Amounts = tuple[tuple[str, str], ...]
"""Kubernetes quantities by resource name."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """Images of the sandbox's own containers, who may connect, and defaults for the shell.

    `operator_labels` select the operator's pods in `operator_namespace`: the only ones that a
    sandbox's network policy lets in.
    """

    server_image: str
    runner_image: str
    operator_namespace: str
    operator_labels: tuple[tuple[str, str], ...] = (
        (names.LABEL_PART_OF, names.MANAGED_BY),
        (names.LABEL_COMPONENT, "operator"),
    )
    pull_policy: str = "IfNotPresent"
    image_volumes: bool = False
    """Whether sandboxes mount the runner's image instead of copying its files: for clusters whose
    nodes offer image volumes (Kubernetes 1.35 with containerd 2.1 or CRI-O 1.31, and later)."""
    probe_targets: tuple[str, ...] = ()
    """What is known to listen and no sandbox may reach, as `address:port`: tried by each sandbox, to
    see whether its network policy holds."""
    requests: Amounts = field(default=(("cpu", "100m"), ("memory", "128Mi")))
    limits: Amounts = field(default=(("cpu", "2"), ("memory", "2Gi"), ("ephemeral-storage", "5Gi")))
