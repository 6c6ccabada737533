"""The chart's presets: do they give what the golden files say, and does the API server take it?

`python3 -m tools.presets` renders each file of charts/ratchet/presets with helm, compares it with
tests/data/presets, and hands it to the API server of the checkout's cluster as a dry run. What has
to come from the user (digests, the commit of the weights, the licence) is an example here.
"""

import difflib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import Cluster, ClusterError, current
from tests.cluster.local import binaries
from tests.e2e.crds import install_crds

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "ratchet"
FILES = CHART / "presets"
GOLDEN = ROOT / "tests" / "data" / "presets"
KUBE = "v1.35.4"
RELEASE, NAMESPACE, TEAM = "ratchet", "ratchet-system", "team"
MAY_BE_UNKNOWN = frozenset({"monitoring.coreos.com"})
"""Groups of kinds that come with other software, and that a cluster for tests does not serve."""

DIGEST = "sha256:" + "0123456789abcdef" * 4
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_FROM_THE_USER = ("images.registry=registry.example.com/ratchet",)
_FOR_SGLANG = (
    f"sglang.image.digest={DIGEST}",
    f"sglang.model.revision={COMMIT}",
    "sglang.podMonitor.enabled=true",
    "sglang.alerts.enabled=true",
)


@dataclass(frozen=True, slots=True)
class Preset:
    """A file of values, and what its user adds to it."""

    name: str
    settings: tuple[str, ...] = ()
    """NAME=VALUE, for helm."""

    @property
    def file(self) -> Path:
        """Its values."""
        return FILES / f"{self.name}.yaml"

    @property
    def golden(self) -> Path:
        """The objects that it has to give."""
        return GOLDEN / f"{self.name}.yaml"


def _served(name: str, model: str) -> Preset:
    return Preset(name, (*_FOR_SGLANG, f"sglang.model.licenceAccepted={model}"))


PRESETS = (
    _served("mistral-medium-4gpu", "mistralai/Mistral-Medium-3.5-128B"),
    _served("one-gpu", "mistralai/Devstral-Small-2-24B-Instruct-2512"),
    Preset("external-endpoint"),
)


class PresetError(Exception):
    """A preset does not give what it should; says what, and what to do."""


def find_helm() -> str:
    """Path of helm: the machine's, or the one that was built for the cluster.

    Raises `PresetError` if there is none.
    """
    if found := shutil.which("helm"):
        return found
    built = binaries.folder() / "helm"
    if not built.is_file():
        raise PresetError("helm is missing: install it, or build it with `make cluster-up`")
    return str(built)


def render(helm: str, preset: Preset, namespace: str = NAMESPACE, team: str = TEAM) -> str:
    """The objects of a preset as YAML. Raises `PresetError` if helm refuses.

    `namespace`: of the release; `team`: of the tasks.
    """
    settings = [*_FROM_THE_USER, f"defaults.namespace={team}", *preset.settings]
    argv = [helm, "template", RELEASE, str(CHART), "--values", str(preset.file)]
    argv += ["--namespace", namespace, "--kube-version", KUBE]
    argv += [f"--set={setting}" for setting in settings]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PresetError(f"helm refuses {preset.file}: {done.stderr.strip()}")
    items = [item for item in yaml.safe_load_all(done.stdout) if item]
    return yaml.safe_dump_all(items, sort_keys=False, width=100)


def compare(preset: Preset, text: str) -> None:
    """Raises `PresetError`, with the difference, unless the text is that of the golden file."""
    wanted = preset.golden.read_text() if preset.golden.is_file() else ""
    if text == wanted:
        return
    lines = difflib.unified_diff(
        wanted.splitlines(), text.splitlines(), str(preset.golden), "now", lineterm="", n=2
    )
    raise PresetError(
        "\n".join([f"{preset.name} gives other objects than its golden file:", *lines])
        + "\nif that is meant: pytest tests/unit/charts/test_presets.py --rewrite-golden"
    )


@dataclass(frozen=True, slots=True)
class Sorted:
    """Objects, by whether this API server can be asked about them."""

    known: tuple[dict[str, Any], ...]
    unknown: tuple[dict[str, Any], ...]
    """Of kinds that other software brings."""


def sort_out(text: str, served: Sequence[str]) -> Sorted:
    """Objects of a rendered preset. `served`: the versions that the API server has.

    Other kinds that it does not have stay among the known ones, and are refused by it.
    """
    known: list[dict[str, Any]] = []
    unknown: list[dict[str, Any]] = []
    for item in yaml.safe_load_all(text):
        version = item["apiVersion"]
        foreign = version.partition("/")[0] in MAY_BE_UNKNOWN and version not in served
        (unknown if foreign else known).append(item)
    return Sorted(tuple(known), tuple(unknown))


@dataclass(frozen=True, slots=True)
class Api:
    """The API server of a cluster, by kubectl."""

    cluster: Cluster

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """Output of a command. Raises `PresetError` if it fails."""
        argv = ["kubectl", "--kubeconfig", self.cluster.kubeconfig]
        argv += ["--context", self.cluster.context, *words]
        env: Mapping[str, str] = {
            **os.environ,
            "PATH": f"{self.cluster.path}:{os.environ.get('PATH', '')}",
        }
        done = subprocess.run(
            argv, env=env, input=given, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise PresetError(f"`kubectl {' '.join(words[:3])} ...` failed: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A namespace for the time of the dry runs, which ask for one that is there."""
        name = f"presets-{uuid.uuid4().hex[:8]}"
        self.kubectl("create", "namespace", name)
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def try_out(self, items: Sequence[dict[str, Any]]) -> None:
        """Have everything checked and nothing stored. Raises `PresetError` with all refusals."""
        words = ["apply", "--server-side", "--dry-run=server", "--validate=strict"]
        words += ["--force-conflicts", "--field-manager=ratchet-presets", "--filename=-"]
        self.kubectl(*words, given=yaml.safe_dump_all(items))


def check(preset: Preset, helm: str, api: Api, namespace: str) -> str:
    """Golden file and dry run of one preset; a line of what was seen. Raises `PresetError`."""
    compare(preset, render(helm, preset))
    served = api.kubectl("api-versions").split()
    found = sort_out(render(helm, preset, namespace, namespace), served)
    api.try_out(found.known)
    line = f"{preset.name}: as its golden file; {len(found.known)} objects pass the API server"
    if found.unknown:
        names = ", ".join(f"{item['kind']} {item['metadata']['name']}" for item in found.unknown)
        line += f"; left out, because this cluster does not know the kind: {names}"
    return line


def main() -> None:
    """Entry point; looks at all presets before it gives up."""
    failures = 0
    try:
        cluster, helm = current(), find_helm()
        install_crds(cluster)
        api = Api(cluster)
        with api.namespace() as namespace:
            for preset in PRESETS:
                try:
                    print(check(preset, helm, api, namespace), flush=True)
                except PresetError as error:
                    failures += 1
                    print(f"error: {error}", file=sys.stderr)
    except (ClusterError, PresetError) as error:
        sys.exit(f"error: {error}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
