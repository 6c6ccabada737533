"""gVisor as a second runtime of the node: how containerd finds it, and how pods ask for it.

The names are those of gVisor's own documentation, https://gvisor.dev/docs/user_guide/containerd/.
"""

from typing import Any

from tests.cluster.local.controlplane import STATE

PROGRAMS = "/run/ratchet/gvisor"
"""Where the node sees runsc and its shim (binaries.GVISOR.name)."""
CLASS = "gvisor"
"""The RuntimeClass that pods name."""
HANDLER = "runsc"
SETTINGS = "runsc.toml"


def containerd() -> str:
    """What containerd's configuration says about it (TOML, to be put at its end)."""
    runtime = f'plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{HANDLER}'
    return f"""
[{runtime}]
runtime_type = "io.containerd.runsc.v1"
runtime_path = "{PROGRAMS}/containerd-shim-runsc-v1"

[{runtime}.options]
TypeUrl = "io.containerd.runsc.v1.options"
ConfigPath = "{STATE}/{SETTINGS}"
"""


def settings() -> str:
    """Settings of the shim: systrap is the platform that needs no virtualisation."""
    return f"""binary_name = "{PROGRAMS}/runsc"

[runsc_config]
platform = "systrap"
"""


def runtime_class() -> dict[str, Any]:
    """The RuntimeClass."""
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": CLASS},
        "handler": HANDLER,
    }
