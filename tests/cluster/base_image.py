"""The image that others are built on where no registry can be reached: Debian, made here."""

from pathlib import Path

from tests.cluster import folders
from tests.cluster.commands import run, step
from tests.cluster.errors import ClusterError

SUITE = "bookworm"
PACKAGES = (
    "bash",
    "busybox-static",
    "ca-certificates",
    "coreutils",
    "diffutils",
    "findutils",
    "git",
    "grep",
    "gzip",
    "less",
    "openssh-client",
    "patch",
    "procps",
    "python3",
    "python3-venv",
    "ripgrep",
    "sed",
    "tar",
    "xz-utils",
)
OPTIONS = (
    "--variant=essential",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    # This machine's own names stay out; pip's settings get a place to be mounted over.
    '--customize-hook=rm -f "$1"/etc/resolv.conf "$1"/etc/hostname',
    '--customize-hook=touch "$1"/etc/pip.conf',
)


def key() -> str:
    """Digest of the recipe."""
    return folders.digest(SUITE, *PACKAGES, *OPTIONS)


def name() -> str:
    """Name of the image in buildah's storage."""
    return f"localhost/ratchet-base:{key()[:12]}"


def root_file_system() -> Path:
    """A tar file of the root file system, made once (about half a minute)."""
    target = folders.cache() / "base" / f"{key()}.tar"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}")
        with step(f"make the base image (Debian {SUITE})"):
            run(
                ["mmdebstrap", *OPTIONS, f"--include={','.join(PACKAGES)}", SUITE, str(partial)],
                timeout=900,
            )
        partial.replace(target)
    return target


def ensure(buildah: list[str]) -> str:
    """Name of the base image, after it is in buildah's storage. The caller holds the lock."""
    wanted = name()
    if _has(buildah, wanted):
        return wanted
    tar = root_file_system()
    with step(f"import {wanted}"):
        container = run([*buildah, "from", "scratch"]).strip()
        try:
            run([*buildah, "add", container, tar, "/"], timeout=300)
            settings = ["--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
            settings += ["--cmd=bash", "--label=org.opencontainers.image.title=ratchet-base"]
            run([*buildah, "config", *settings, container])
            run([*buildah, "commit", container, wanted], timeout=300)
        finally:
            run([*buildah, "rm", container])
    return wanted


def _has(buildah: list[str], image: str) -> bool:
    try:
        run([*buildah, "inspect", "--type=image", image])
    except ClusterError:
        return False
    return True
