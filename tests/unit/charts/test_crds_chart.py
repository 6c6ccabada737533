"""The chart of the definitions: the generated CRDs, kept when it is uninstalled."""

from __future__ import annotations

from pathlib import Path

import yaml
from ratchet.api.crd import RESOURCES

from tests.unit.charts.helm import CHARTS, helm, render, template

CRDS = Path(__file__).resolve().parents[3] / "crds"


def test_it_brings_the_definitions_as_they_are_in_crds() -> None:
    rendered = {
        item["metadata"]["name"]: item["spec"]
        for item in render(chart="ratchet-crds", release="ratchet-crds")
    }
    committed = [yaml.safe_load(file.read_text()) for file in sorted(CRDS.glob("*.yaml"))]
    assert len(rendered) == len(RESOURCES)
    assert rendered == {item["metadata"]["name"]: item["spec"] for item in committed}


def test_they_stay_at_uninstall_unless_told_otherwise() -> None:
    for crd in render(chart="ratchet-crds"):
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for crd in render("--set=keep=false", chart="ratchet-crds"):
        assert "annotations" not in crd["metadata"]


def test_it_is_linted_and_refuses_unknown_values() -> None:
    assert helm("lint", "--strict", str(CHARTS / "ratchet-crds")).returncode == 0
    assert "unknown" in template("--set=unknown=1", chart="ratchet-crds").stderr
