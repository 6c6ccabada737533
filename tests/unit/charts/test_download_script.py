"""The script of the download Job, run as it stands, with a library that fetches from a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.charts.helm import CHARTS

SCRIPT = CHARTS / "ratchet/files/download.py"
LIBRARY = """
import fnmatch, json, os, pathlib, shutil

def snapshot_download(repo_id, revision, local_dir, ignore_patterns):
    here = pathlib.Path(__file__).parent
    with (here / "asked.jsonl").open("a") as log:
        log.write(json.dumps([repo_id, revision, str(local_dir), ignore_patterns]) + "\\n")
    pathlib.Path(local_dir).mkdir(parents=True, exist_ok=True)
    for file in (here / "repository").iterdir():
        if not any(fnmatch.fnmatch(file.name, pattern) for pattern in ignore_patterns):
            shutil.copy(file, local_dir)
"""
WHOLE = {
    "config.json": '{"architectures": ["SomeForCausalLM"]}',
    "model.safetensors.index.json": '{"weight_map": {"a": "model-1.safetensors"}}',
    "model-1.safetensors": "weights",
    "consolidated-1.safetensors": "the same again",
}


class Machine:
    """Where the script runs: a library, a repository behind it, and an empty disk."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "models/lab--model/commit"
        self._library = folder / "library"
        (self._library / "repository").mkdir(parents=True)
        (self._library / "huggingface_hub.py").write_text(LIBRARY)

    def publish(self, files: dict[str, str]) -> None:
        """What the repository holds."""
        for name, text in files.items():
            (self._library / "repository" / name).write_text(text)

    def run(self, *exclude: str) -> subprocess.CompletedProcess[str]:
        """The Job, once."""
        given = {
            "PYTHONPATH": str(self._library),
            "PATH": os.environ["PATH"],
            "MODEL": "lab/model",
            "REVISION": "commit",
            "TARGET": str(self.target),
            "EXCLUDE": json.dumps(exclude),
        }
        argv = [sys.executable, str(SCRIPT)]
        return subprocess.run(argv, env=given, capture_output=True, text=True, check=False)

    @property
    def asked(self) -> list[list[object]]:
        """What the library was asked for."""
        log = self._library / "asked.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()]

    @property
    def complete(self) -> bool:
        """Whether a server would start."""
        return (self.target / ".complete").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_one_revision_is_fetched_less_what_is_excluded(machine: Machine) -> None:
    machine.publish(WHOLE)
    done = machine.run("consolidated*")
    assert done.returncode == 0, done.stderr
    assert machine.asked == [["lab/model", "commit", str(machine.target), ["consolidated*"]]]
    assert machine.complete
    assert not (machine.target / "consolidated-1.safetensors").exists()


def test_what_is_there_is_not_fetched_again(machine: Machine) -> None:
    machine.publish(WHOLE)
    machine.run()
    assert machine.run().returncode == 0
    assert len(machine.asked) == 1


@pytest.mark.parametrize(
    ("exclude", "says"),
    [
        ("config*", "there is no config.json"),
        ("model-*", "1 files of weights are missing, the first is model-1.safetensors"),
    ],
)
def test_a_pattern_too_many_is_named_and_no_server_starts(
    machine: Machine, exclude: str, says: str
) -> None:
    machine.publish(WHOLE)
    done = machine.run(exclude)
    assert done.returncode == 1
    assert says in done.stderr
    assert not machine.complete


def test_a_config_without_architectures_is_no_model(machine: Machine) -> None:
    machine.publish({**WHOLE, "config.json": "{}"})
    assert "names no architectures" in machine.run().stderr
    assert not machine.complete


def test_a_model_in_one_file_needs_no_index(machine: Machine) -> None:
    machine.publish({"config.json": WHOLE["config.json"], "model.safetensors": "weights"})
    assert machine.run().returncode == 0
    assert machine.complete


def test_a_repository_without_weights_is_not_complete(machine: Machine) -> None:
    machine.publish({"config.json": WHOLE["config.json"]})
    assert "files of weights are missing" in machine.run().stderr
    assert not machine.complete
