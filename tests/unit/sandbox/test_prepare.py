"""The init container: files, repositories, and whose workspace it is."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from ratchet_sandbox.runner.base import NotPrepared
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.prepare import manifest, prepare

from tests.unit.sandbox.runners import make_base, make_config, unmark

FILES = {"src/a.py": "print(1)\n", "run.sh": "echo\n", ".gitignore": "*.sh\n"}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, "-c", "safe.directory=*", *arguments],
        capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"},
    )  # fmt: skip
    return done.stdout.strip()


def again(config: Config, task_uid: str = "uid-1") -> None:
    folder = config.runtime.parent
    prepare(config, bundled=folder / "bundled", start_files=folder / "files", task_uid=task_uid)


def test_the_workspace_is_a_clean_repository_with_one_commit(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, FILES)

    assert (config.workspace / "src/a.py").read_text() == "print(1)\n"
    assert git(config.workspace, "status", "--porcelain") == ""
    assert git(config.workspace, "log", "--format=%s %an %aI") == (
        "base Ratchet 2000-01-01T00:00:00+00:00"
    )
    assert git(config.workspace, "ls-files").splitlines() == [".gitignore", "run.sh", "src/a.py"]


def test_the_base_commit_depends_on_the_files_alone(tmp_path: Path) -> None:
    one, two = make_config(tmp_path / "1"), make_config(tmp_path / "2")
    make_base(one, FILES)
    make_base(two, FILES)

    assert git(one.base, "rev-parse", "HEAD") == git(two.base, "rev-parse", "HEAD")


def test_a_task_without_files_gets_an_empty_base_commit(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, {})

    assert git(config.base, "ls-tree", "HEAD") == ""
    assert git(config.workspace, "status", "--porcelain") == ""


def test_a_workspace_that_is_in_use_is_never_touched_again(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, FILES)
    commit = git(config.base, "rev-parse", "HEAD")
    (config.workspace / "src/a.py").write_text("changed")
    (config.workspace / "run.sh").unlink()

    again(config)

    assert (config.workspace / "src/a.py").read_text() == "changed"
    assert not (config.workspace / "run.sh").exists()
    assert git(config.base, "rev-parse", "HEAD") == commit


def test_a_workspace_of_another_task_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, FILES)

    with pytest.raises(NotPrepared, match="belongs to task uid-1, not to uid-2"):
        again(config, "uid-2")


def test_an_interrupted_preparation_is_done_again(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, FILES)
    unmark(config)
    (config.workspace / "src/a.py").write_text("half")

    again(config)

    assert (config.workspace / "src/a.py").read_text() == "print(1)\n"


def test_modes_are_set_and_the_group_may_write(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, {"run.sh": "x"})
    (tmp_path / "files/index.json").write_text(
        json.dumps([{"path": "run.sh", "source": "f0", "mode": "0755"}])
    )
    unmark(config)

    again(config)

    assert stat.S_IMODE((config.workspace / "run.sh").stat().st_mode) == 0o775


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "../up", "source": "f0"},
        {"path": "/etc/passwd", "source": "f0"},
        {"path": "a//b", "source": "f0"},
        {"path": ".git/config", "source": "f0"},
        {"path": "sub/.git/hooks/x", "source": "f0"},
        {"path": "a", "source": "../f0"},
        {"path": "a", "source": "f0", "mode": "4755"},
        {"path": "a\0b", "source": "f0"},
        {"path": 1, "source": "f0"},
        {"source": "f0"},
        "a",
    ],
)
def test_a_file_that_does_not_belong_into_the_workspace_is_refused(
    tmp_path: Path, entry: object
) -> None:
    index = tmp_path / "index.json"
    index.write_text(json.dumps([entry]))

    with pytest.raises(NotPrepared, match="not a file that can be put"):
        manifest(index)


@pytest.mark.parametrize("text", ["{", "{}", '"x"'])
def test_an_index_that_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)

    with pytest.raises(NotPrepared, match="no list of files"):
        manifest(tmp_path / "index.json")


def test_the_runtime_is_copied_again_when_the_pod_starts_again(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, FILES)
    (tmp_path / "bundled/lib").mkdir()
    (tmp_path / "bundled/lib/ld-1.so").write_text("loader")
    (tmp_path / "bundled/lib/ld.so").symlink_to("ld-1.so")

    again(config)
    again(config)

    assert (config.runtime / "lib/ld.so").readlink() == Path("ld-1.so")


def test_a_runtime_that_the_runner_sees_too_is_linked_and_not_copied(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    make_base(config, FILES)
    (tmp_path / "bundled/lib").mkdir()
    (tmp_path / "bundled/lib/ld.so").write_text("loader")

    for _ in range(2):  # the second is that of a pod that starts again
        prepare(
            config, bundled=tmp_path / "bundled", start_files=tmp_path / "files",
            task_uid="uid-1", linked=True,
        )  # fmt: skip

    assert (config.runtime / "lib").readlink() == tmp_path / "bundled/lib"
    assert (config.runtime / "lib/ld.so").read_text() == "loader"
    assert (config.base / "HEAD").is_file() and not config.base.is_symlink()
