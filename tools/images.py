"""The project's images: `python3 -m tools.images build|load|push [--registry NAME]`.

Each is built by Docker where it answers, else by buildah, and only if something it depends on has
changed. `build/images.json` says what was built.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "build" / "images.json"
REGISTRY = "localhost"
"""What local names begin with; nothing is pulled from there."""
TAG = "dev"


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the project."""

    name: str
    dockerfile: str
    context: str = "."
    target: str = ""
    """Stage of the Dockerfile; empty: the last."""

    @property
    def tag(self) -> str:
        """Full local name."""
        return f"{REGISTRY}/{self.name}:{TAG}"


SANDBOX = ("sandbox-image/Dockerfile", "sandbox-image")
SHELLS = "tests/e2e/any_image"
EXAMPLE = ("examples/fix-failing-test/Dockerfile", "examples/fix-failing-test")
IMAGES = (
    Image("ratchet-operator", "Dockerfile"),
    Image("ratchet-sandbox-server", *SANDBOX, target="server"),
    Image("ratchet-runner", *SANDBOX, target="runner"),
    Image("ratchet-fake-sglang", "inference/fake/Dockerfile"),
    Image("ratchet-demo-shell", *EXAMPLE),
)
FOR_TESTS = tuple(
    Image(f"ratchet-test-{name}", f"{SHELLS}/{name}/Dockerfile", f"{SHELLS}/{name}")
    for name in ("bash", "busybox")
)
"""Images that users might have: brought into the cluster, and never pushed."""


@dataclass(frozen=True, slots=True)
class Built:
    """An image that has been built."""

    tag: str
    archive: str
    """Path of the docker-archive; its file name is a digest of what the image was built from."""

    @property
    def digest(self) -> str:
        """Tells two builds of one tag apart."""
        return Path(self.archive).stem


def build(images: Sequence[Image] = (*IMAGES, *FOR_TESTS)) -> dict[str, Built]:
    """Build what has changed, and write the list."""
    built = {image.name: Built(image.tag, _build(image)) for image in images}
    LIST.parent.mkdir(exist_ok=True)
    content = {name: asdict(one) for name, one in built.items()}
    LIST.write_text(json.dumps(content, indent=2) + "\n")
    return built


def built() -> dict[str, Built]:
    """What was built last, by name. Ends the process with a sentence if nothing was."""
    if not LIST.is_file():
        sys.exit("no image has been built: run `make images`")
    return {name: Built(**one) for name, one in json.loads(LIST.read_text()).items()}


def load() -> None:
    """Bring all images into the cluster of this checkout; what is there already is left out."""
    _cluster("load", *(one.archive for one in built().values()))


def push(registry: str) -> None:
    """Push all images but those for tests to a registry."""
    from tests.cluster import ClusterError, given

    os.environ["REGISTRY"] = registry
    try:
        found = built()
        for image in IMAGES:
            given.load(Path(found[image.name].archive))
    except ClusterError as error:
        sys.exit(f"error: {error}")


def _build(image: Image) -> str:
    words = ["--file", image.dockerfile, "--tag", image.tag, "--context", image.context]
    if image.target:
        words += ["--target", image.target]
    words += ["--target", image.target] if image.target else []
    return _cluster("build-image", *words).strip().splitlines()[-1]


def _cluster(*words: str) -> str:
    argv = [sys.executable, "-m", "tests.cluster", *words]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        # It has said on stderr what was wrong.
        sys.exit(done.returncode)
    return done.stdout


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.images", description=__doc__)
    parser.add_argument("command", choices=["build", "load", "push"])
    parser.add_argument("--registry", default="", help="for push, such as registry.example.com/x")
    options = parser.parse_args()
    match options.command:
        case "build":
            build()
        case "load":
            load()
        case _ if not options.registry:
            parser.error("name the registry: make push REGISTRY=registry.example.com/ratchet")
        case _:
            push(options.registry)


if __name__ == "__main__":
    main()
