"""What the documentation says exists: commands, paths, words, manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ratchet.api.base import Resource
from ratchet.api.crd import RESOURCES, crd
from ratchet.core.conditions import Phase, Reason
from ratchet.core.records import Outcome, Verdict

from examples import demo

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("inference/**/*.md"),
        *ROOT.glob("tests/cluster/*.md"),
    ]
)
HAND_WRITTEN = [page for page in PAGES if page.name != "api.md"]
README = (ROOT / "README.md").read_text()
KINDS: dict[str, type[Resource]] = {resource.__name__: resource for resource in RESOURCES}
TOP = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}

pages = pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str, language: str) -> Iterator[str]:
    """Fenced blocks of one language."""
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield found[1]


def commands(text: str) -> str:
    """All that is set as code."""
    fenced = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", text)])


def manifests(text: str) -> Iterator[dict[str, Any]]:
    """Objects of ours in the YAML blocks."""
    for block in blocks(text, "yaml"):
        for item in yaml.safe_load_all(block):
            if isinstance(item, dict) and str(item.get("apiVersion", "")).startswith(
                "ratchet.run/"
            ):
                yield item


def unknown_fields(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """Fields of an object that its CRD does not have."""
    if isinstance(value, dict) and "properties" in schema:
        for name, inner in value.items():
            if name not in schema["properties"]:
                yield f"{where}.{name}"
            elif where or name != "metadata":
                yield from unknown_fields(inner, schema["properties"][name], f"{where}.{name}")
    if isinstance(value, list):
        for item in value:
            yield from unknown_fields(item, schema.get("items", {}), f"{where}[]")


@pages
def test_every_manifest_is_one_that_the_api_takes(page: Path) -> None:
    for item in manifests(page.read_text()):
        kind = KINDS[item["kind"]]
        kind.model_validate(item)
        (version,) = crd(kind)["spec"]["versions"]
        assert not list(unknown_fields(item, version["schema"]["openAPIV3Schema"], ""))


@pages
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", commands(page.read_text())))
    assert named <= targets


@pages
def test_every_path_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`([\w./-]+/[\w./-]+)`", page.read_text())
    for path in named:
        if path.split("/")[0] in TOP - {"build"}:
            assert (ROOT / path).exists() or path == "operator/__init__.py", path


@pages
def test_no_page_names_a_place_that_only_one_machine_has(page: Path) -> None:
    assert not re.search(r"(?<![\w.-])/(root|home|work|Users)/", page.read_text())


def test_the_first_screen_shows_a_task_its_watch_and_the_two_commands() -> None:
    screen = "\n".join(README.splitlines()[:42])
    assert "It is not" in screen
    assert len(list(manifests(screen))) == 1
    assert "$ kubectl get agenttasks -w" in screen
    assert "`make demo`" in screen
    assert "`make test`" in screen


def test_the_watch_has_the_columns_that_the_kind_has() -> None:
    (version,) = crd(KINDS["AgentTask"])["spec"]["versions"]
    shown = [c["name"] for c in version["additionalPrinterColumns"] if not c.get("priority")]
    header = next(line for line in README.splitlines() if line.startswith("NAME "))
    assert header.split() == ["NAME", *shown]


@pytest.mark.parametrize("output", [demo.TURNS, demo.SUMMARY, demo.END, demo.PATCH])
def test_the_readmes_commands_are_those_that_run_on_the_cluster(output: str) -> None:
    assert output in README.replace("'", "")


def test_the_glossary_has_every_verdict_and_outcome() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text()
    for word in (*Verdict, *Outcome):
        assert str(word) in glossary, word


def test_the_architecture_names_only_phases_and_reasons_that_there_are() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    known = {str(word) for word in (*Phase, *Reason)}
    table = text.split("## 5. Status")[1].split("Phase is a summary")[0]
    shown = {cell.strip() for row in table.splitlines() for cell in row.split("|")[2:3]}
    phases = {name for cell in shown for name in cell.split(", ")} - {"phase", "---", ""}
    assert phases <= known
    assert {"JournalConflict", "ResultLost"} <= known


def test_every_dependency_has_a_reason() -> None:
    text = (ROOT / "docs/dependencies.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r'^  "([a-z-]+)(?:>=[\w.]+)?",$', project.split("[tool.")[0], re.MULTILINE)
    assert len(listed) > 15
    for name in listed:
        assert name in text, name
