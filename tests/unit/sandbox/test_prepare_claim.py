"""A workspace on a claim: the next pod finds it as it was, and nobody else's is ever touched."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ratchet_sandbox.runner import kept, workspace
from ratchet_sandbox.runner.base import NotPrepared
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.prepare import prepare
from ratchet_sandbox.runner.processes import Children

from tests.unit.sandbox.runners import make_base, make_config
from tests.unit.sandbox.test_prepare import FILES, again, git


@pytest.fixture
def first(tmp_path: Path) -> Config:
    """The first pod's, with its workspace prepared."""
    config = replace(make_config(tmp_path), claim=tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    make_base(config, FILES)
    return config


def next_pod(config: Config) -> Config:
    """Another pod on the same claim: its own runtime volume is empty."""
    shutil.rmtree(config.base)
    return config


def test_the_next_pod_finds_work_and_base_commit_as_they_were(first: Config) -> None:
    commit = git(first.base, "rev-parse", "HEAD")
    (first.workspace / "src/a.py").write_text("changed")
    (first.workspace / "run.sh").unlink()

    again(next_pod(first))

    assert (first.workspace / "src/a.py").read_text() == "changed"
    assert not (first.workspace / "run.sh").exists()
    assert git(first.base, "rev-parse", "HEAD") == commit


def test_the_patch_of_the_next_pod_has_the_work_of_both(first: Config) -> None:
    (first.workspace / "src/a.py").write_text("first\n")
    again(next_pod(first))
    (first.workspace / "new.py").write_text("second\n")

    async def patch() -> str:
        async with Children() as children:
            made = await workspace.diff(first, children, "1")
        return base64.b64decode(made.patch).decode()

    data = asyncio.run(patch())
    assert "+first" in data and "+second" in data


def test_the_base_commit_stays_although_the_start_files_have_changed(first: Config) -> None:
    commit = git(first.base, "rev-parse", "HEAD")
    (first.runtime.parent / "files/f0").write_text("another start")
    again(next_pod(first))
    assert git(first.base, "rev-parse", "HEAD") == commit


def test_nothing_that_commands_do_makes_the_workspace_look_new(first: Config) -> None:
    shutil.rmtree(first.private)
    shutil.rmtree(first.workspace / ".git")
    (first.workspace / "work").write_text("kept")
    again(next_pod(first))
    assert (first.workspace / "work").read_text() == "kept"
    assert not (first.workspace / ".git").exists()


def test_the_claim_of_another_task_is_refused(first: Config) -> None:
    with pytest.raises(NotPrepared, match="belongs to task uid-1, not to uid-2"):
        again(next_pod(first), "uid-2")


def test_another_tasks_claim_is_refused_although_it_is_not_complete(first: Config) -> None:
    kept.begun(first, "uid-1")
    with pytest.raises(NotPrepared, match="belongs to task uid-1, not to uid-2"):
        again(first, "uid-2")


def test_a_volume_with_files_of_nobody_knows_whom_is_left_alone(tmp_path: Path) -> None:
    config = replace(make_config(tmp_path), claim=tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    (config.workspace / "thesis.tex").write_text("years of work")
    with pytest.raises(NotPrepared, match=r"not empty .*thesis.tex"):
        make_base(config, {"thesis.tex": "gone"})
    assert (config.workspace / "thesis.tex").read_text() == "years of work"


def test_an_interrupted_first_pod_is_followed_by_one_that_begins_again(first: Config) -> None:
    kept.begun(first, "uid-1")
    (first.workspace / "src/a.py").write_text("half")
    again(next_pod(first))
    assert (first.workspace / "src/a.py").read_text() == "print(1)\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"task": "uid-1"}', "null"])
def test_a_damaged_marker_is_refused_with_what_to_do(first: Config, text: str) -> None:
    (first.kept / "task").write_text(text)
    with pytest.raises(NotPrepared, match="Delete the task and its PersistentVolumeClaim"):
        again(first)


def test_a_claim_without_its_base_repository_is_refused(first: Config) -> None:
    shutil.rmtree(first.kept / "base.git")
    with pytest.raises(NotPrepared, match=r"base repository .* is gone"):
        again(next_pod(first))


def test_the_marker_names_task_and_base_commit(first: Config) -> None:
    found = json.loads((first.kept / "task").read_text())
    assert found == {"task": "uid-1", "base": git(first.base, "rev-parse", "HEAD")}


def test_without_a_claim_the_marker_is_out_of_the_commands_reach_too(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, FILES)
    shutil.rmtree(config.private)
    (config.workspace / "src/a.py").write_text("changed")
    prepare(
        config, bundled=tmp_path / "bundled", start_files=tmp_path / "files", task_uid="uid-1"
    )  # the node was started again, and with it the init container
    assert (config.workspace / "src/a.py").read_text() == "changed"
