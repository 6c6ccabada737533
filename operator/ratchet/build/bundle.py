"""How the runner's files come into the shell container: copied, or by a volume that is an image.

With image volumes nothing is copied at the start of a pod. The runtime is still a volume of the pod's
own, which has links to the image's files, since the base repository and the list of users lie there.
"""

from __future__ import annotations

from ratchet.build import paths
from ratchet.build.generation import Manifest
from ratchet.build.settings import SandboxSettings


def options(settings: SandboxSettings) -> list[str]:
    """What `prepare` is told beside."""
    return ["--link", paths.BUNDLE] if settings.image_volumes else []


def mounts(settings: SandboxSettings) -> list[Manifest]:
    """Of `prepare` and the shell, at the same place, so that links hold in both."""
    if not settings.image_volumes:
        return []
    return [
        {
            "name": "bundle",
            "mountPath": paths.BUNDLE,
            "subPath": paths.BUNDLED,
            "readOnly": True,
        }
    ]


def volumes(settings: SandboxSettings) -> list[Manifest]:
    """The volume that `mounts` mounts. The node has the image: `prepare` runs in it."""
    if not settings.image_volumes:
        return []
    image = {"reference": settings.runner_image, "pullPolicy": settings.pull_policy}
    return [{"name": "bundle", "image": image}]
