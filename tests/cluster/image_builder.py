"""Images from Dockerfiles: by Docker where it answers, else by buildah as root, into tar files."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import base_image, build_context, folders, pip_settings
from tests.cluster.commands import run, say, step, succeeds
from tests.cluster.errors import ClusterError
from tests.cluster.local import packages

KEPT_LAYERS = 100
KEPT = 3
"""Archives of one image that stay in the cache."""


def docker_answers() -> bool:
    """Whether there is a Docker daemon to talk to."""
    return succeeds(["docker", "info"], timeout=20.0)


def archive_path(tag: str, digest: str) -> Path:
    """Where the archive of an image with this content belongs."""
    slug = re.sub(r"[^A-Za-z0-9.-]+", "_", tag)
    return folders.cache() / "images" / slug / f"{digest}.tar"


def build(dockerfile: Path, tag: str, context: Path, arguments: Mapping[str, str]) -> Path:
    """A docker-archive of the image; built only if something it depends on has changed.

    With buildah the build argument BASE is our own base image unless it is given.
    """
    if not dockerfile.is_file():
        raise ClusterError(f"{dockerfile} does not exist: name a Dockerfile with --file")
    docker = docker_answers()
    parameters = [f"{name}={value}" for name, value in sorted(arguments.items())]
    builder = "docker" if docker else base_image.key()
    digest = build_context.content_digest(dockerfile, context, [tag, builder, *parameters])
    target = archive_path(tag, digest)
    if target.is_file():
        os.utime(target)
        say(f"{tag} is unchanged")
        return target
    with folders.locked(folders.cache() / "images.lock", "building images"):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}")
        partial.unlink(missing_ok=True)
        make = _with_docker if docker else _with_buildah
        make(dockerfile, tag, context, arguments, partial)
        partial.replace(target)
        _prune(target.parent)
    return target


def _prune(folder: Path) -> None:
    newest_first = sorted(folder.glob("*.tar"), key=lambda tar: tar.stat().st_mtime, reverse=True)
    for tar in newest_first[KEPT:]:
        tar.unlink()


def _with_docker(
    dockerfile: Path, tag: str, context: Path, arguments: Mapping[str, str], tar: Path
) -> None:
    words = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    with step(f"build {tag} with Docker"):
        docker = ["docker", "build", "--network=host", "--tag", tag, "--file", str(dockerfile)]
        run([*docker, *words, str(context)], timeout=1800)
        run(["docker", "save", "--output", tar, tag], timeout=600)


def buildah() -> list[str]:
    """Beginning of a buildah command line. It mounts in a namespace of its own, so nothing stays
    mounted, and keeps its layers in our cache."""
    storage = folders.cache() / "buildah"
    folder = [f"--root={storage / 'storage'}", f"--runroot={storage / 'run'}"]
    return ["unshare", "--mount", "buildah", *folder, "--storage-driver=overlay"]


def _with_buildah(
    dockerfile: Path, tag: str, context: Path, arguments: Mapping[str, str], tar: Path
) -> None:
    if os.geteuid() != 0:
        raise ClusterError("images are built without Docker by root only: run as root")
    packages.ensure(packages.IMAGES)
    given = dict(arguments)
    if "BASE" not in given:
        given["BASE"] = base_image.ensure(buildah())
    with step(f"build {tag}"), tempfile.TemporaryDirectory() as scratch:
        listed = build_context.ignore_file(dockerfile, context)
        run(
            [*buildah(), "bud", "--isolation=chroot", "--network=host", "--layers", "--pull-never"]
            + ([f"--ignorefile={listed}"] if listed is not None else [])
            + pip_settings.volumes(Path(scratch), pip_settings.host_environment())
            + [f"--build-arg={name}={value}" for name, value in given.items()]
            + [f"--iidfile={scratch}/id", "--tag", tag, f"--file={dockerfile}", str(context)],
            timeout=1800,
        )
        # By its id: by a name, the archive would carry every other name of the image too.
        identity = Path(scratch, "id").read_text().strip()
        run([*buildah(), "push", "--quiet", identity, f"docker-archive:{tar}:{tag}"], timeout=600)
        _prune_layers()


def _prune_layers() -> None:
    """Drop cached layers when they have become many; the next build makes what it needs."""
    if len(run([*buildah(), "images", "--all", "--quiet"]).split()) > KEPT_LAYERS:
        run([*buildah(), "rmi", "--prune"], timeout=300)
