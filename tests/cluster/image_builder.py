"""Images from Dockerfiles: by Docker where it answers, else by buildah as root, into tar files."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import base_image, build_context, folders, pip_settings
from tests.cluster.commands import run, say, step, succeeds
from tests.cluster.errors import ClusterError
from tests.cluster.local import packages

KEPT_LAYERS = 100
KEPT = 3
"""Archives of one image that stay in the cache."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one image is built from. `target`: the stage of the Dockerfile, the last one if empty."""

    dockerfile: Path
    tag: str
    context: Path
    arguments: Mapping[str, str] = field(default_factory=dict)
    target: str = ""

    def options(self, arguments: Mapping[str, str]) -> list[str]:
        """The words that docker and buildah have in common."""
        words = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        stage = [f"--target={self.target}"] if self.target else []
        return [*words, *stage, "--tag", self.tag, f"--file={self.dockerfile}", str(self.context)]


def docker_answers() -> bool:
    """Whether there is a Docker daemon to talk to."""
    return succeeds(["docker", "info"], timeout=20.0)


def archive_path(tag: str, digest: str) -> Path:
    """Where the archive of an image with this content belongs."""
    slug = re.sub(r"[^A-Za-z0-9.-]+", "_", tag)
    return folders.cache() / "images" / slug / f"{digest}.tar"


def build(recipe: Recipe) -> Path:
    """A docker-archive of the image; built only if something it depends on has changed.

    With buildah the build argument BASE is our own base image unless it is given.
    """
    if not recipe.dockerfile.is_file():
        raise ClusterError(f"{recipe.dockerfile} does not exist: name a Dockerfile with --file")
    docker = docker_answers()
    parameters = [f"{name}={value}" for name, value in sorted(recipe.arguments.items())]
    parameters += [recipe.tag, recipe.target, "docker" if docker else base_image.key()]
    digest = build_context.content_digest(recipe.dockerfile, recipe.context, parameters)
    tag, target = recipe.tag, archive_path(recipe.tag, digest)
    if target.is_file():
        os.utime(target)
        say(f"{tag} is unchanged")
        return target
    with folders.locked(folders.cache() / "images.lock", "building images"):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}")
        partial.unlink(missing_ok=True)
        make = _with_docker if docker else _with_buildah
        make(recipe, partial)
        partial.replace(target)
        _prune(target.parent)
    return target


def _prune(folder: Path) -> None:
    newest_first = sorted(folder.glob("*.tar"), key=lambda tar: tar.stat().st_mtime, reverse=True)
    for tar in newest_first[KEPT:]:
        tar.unlink()


def _with_docker(recipe: Recipe, tar: Path) -> None:
    with step(f"build {recipe.tag} with Docker"):
        options = recipe.options(recipe.arguments)
        run(["docker", "build", "--network=host", *options], timeout=1800)
        run(["docker", "save", "--output", tar, recipe.tag], timeout=600)


def buildah() -> list[str]:
    """Beginning of a buildah command line. It mounts in a namespace of its own, so nothing stays
    mounted, and keeps its layers in our cache."""
    storage = folders.cache() / "buildah"
    folder = [f"--root={storage / 'storage'}", f"--runroot={storage / 'run'}"]
    return ["unshare", "--mount", "buildah", *folder, "--storage-driver=overlay"]


def _with_buildah(recipe: Recipe, tar: Path) -> None:
    if os.geteuid() != 0:
        raise ClusterError("images are built without Docker by root only: run as root")
    packages.ensure(packages.IMAGES)
    given = dict(recipe.arguments)
    if "BASE" not in given:
        given["BASE"] = base_image.ensure(buildah())
    with step(f"build {recipe.tag}"), tempfile.TemporaryDirectory() as scratch:
        listed = build_context.ignore_file(recipe.dockerfile, recipe.context)
        run(
            [*buildah(), "bud", "--isolation=chroot", "--network=host", "--layers", "--pull-never"]
            + ([f"--ignorefile={listed}"] if listed is not None else [])
            + pip_settings.volumes(Path(scratch), pip_settings.host_environment())
            + [f"--iidfile={scratch}/id", *recipe.options(given)],
            timeout=1800,
        )
        # By its id: by a name, the archive would carry every other name of the image too.
        identity = Path(scratch, "id").read_text().strip()
        run(
            [*buildah(), "push", "--quiet", identity, f"docker-archive:{tar}:{recipe.tag}"],
            timeout=600,
        )
        _prune_layers()


def _prune_layers() -> None:
    """Drop cached layers when they have become many; the next build makes what it needs.

    Builds go one at a time, so a working container that is there now was left by a killed one, and
    would keep its layers from being dropped.
    """
    if len(run([*buildah(), "images", "--all", "--quiet"]).split()) > KEPT_LAYERS:
        try:
            run([*buildah(), "rm", "--all"], timeout=300)
            run([*buildah(), "rmi", "--prune"], timeout=300)
        except ClusterError as error:
            say(f"old layers stay in the cache: {error}")  # the image is built all the same
