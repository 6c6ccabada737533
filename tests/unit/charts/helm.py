"""helm, where the machine or the cluster's cache has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import ClusterError
from tests.cluster.local import binaries

CHARTS = Path(__file__).resolve().parents[3] / "charts"
KUBE = "v1.35.4"
REGISTRY = "--set=images.registry=registry.example.com/ratchet"


def program() -> str:
    """Path of helm; skips the test where there is none."""
    if found := shutil.which("helm"):
        return found
    try:
        built = binaries.folder() / "helm"
    except ClusterError as error:
        pytest.skip(f"helm is not on PATH, and cannot be built: {error}")
    if not built.is_file():
        pytest.skip("helm is not on PATH, and `make cluster-up` has not built it yet")
    return str(built)


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run([program(), *words], capture_output=True, text=True, check=False)


def render(*words: str, chart: str = "ratchet", release: str = "ratchet") -> list[dict[str, Any]]:
    """The objects that a chart makes with these values."""
    done = template(*words, chart=chart, release=release)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def template(
    *words: str, chart: str = "ratchet", release: str = "ratchet"
) -> subprocess.CompletedProcess[str]:
    """`helm template`, whatever comes of it."""
    where = ["--namespace", "ratchet-system", "--kube-version", KUBE]
    return helm("template", release, str(CHARTS / chart), *where, *words)


def only(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The one object of this kind (and name)."""
    found = [
        item
        for item in objects
        if item["kind"] == kind and (not name or item["metadata"]["name"] == name)
    ]
    assert len(found) == 1, [(item["kind"], item["metadata"]["name"]) for item in objects]
    return found[0]
