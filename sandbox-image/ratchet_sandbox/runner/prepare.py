"""The init container: put the runtime, the start files and their base commit in place.

    python3 -m ratchet_sandbox.runner.prepare

The base commit depends on the files alone (fixed author and date), so it is the same each time.
A workspace that is already this task's is never touched; one of another task is refused.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ratchet_sandbox import protocol
from ratchet_sandbox.runner import bundle, home
from ratchet_sandbox.runner.config import Config

BUNDLE: Final = Path("/opt/ratchet/runtime")
"""Where the runner image keeps the runtime."""
MODES: Final = {"0644": 0o664, "0755": 0o775}
"""Modes of the manifest, and what is set: the group of the pod's containers may write too."""
_EXCLUDE: Final = ".ratchet/\n"
_AUTHOR: Final = {"NAME": "Ratchet", "EMAIL": "ratchet@localhost", "DATE": "946684800 +0000"}


class NotPrepared(Exception):
    """The sandbox cannot be made ready; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class StartFile:
    """A file of the start workspace. `source` is the name of its content in the files' folder."""

    path: str
    source: str
    mode: int


def prepare(config: Config, *, bundled: Path, start_files: Path, task_uid: str) -> None:
    """Make runtime, base repository and workspace ready. Raises NotPrepared."""
    owner = config.private / "task"
    known = owner.read_text(encoding="utf-8").strip() if owner.exists() else None
    if known not in (None, task_uid):
        raise NotPrepared(
            f"the workspace belongs to task {known}, not to {task_uid}: give each task its own"
        )
    _copy_runtime(bundled, config.runtime)
    files = manifest(start_files / "index.json")
    _make_base(config, files, start_files)
    if known is None:
        _fill(config, files, start_files)
        home.arrange(config)
        owner.write_text(task_uid, encoding="utf-8")  # last: its presence says all is there


def manifest(path: Path) -> list[StartFile]:
    """The files that ``index.json`` lists; none if there is no such file. Raises NotPrepared."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise NotPrepared(f"{path} is no list of files: {error}") from error
    if not isinstance(entries, list):
        raise NotPrepared(f"{path} is no list of files")
    return [_entry(entry) for entry in entries]


def _entry(entry: Any) -> StartFile:
    try:
        path, source, mode = entry["path"], entry["source"], MODES[entry.get("mode", "0644")]
        good = _stays_inside(path) and PurePosixPath(source).name == source
    except (KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise NotPrepared(f"not a file that can be put into the workspace: {entry!r}")
    return StartFile(path, source, mode)


def _stays_inside(path: str) -> bool:
    wrong = {"", ".", "..", ".git", ".ratchet"}
    return "\0" not in path and not wrong.intersection(path.split("/"))


def _copy_runtime(bundled: Path, runtime: Path) -> None:
    # One by one: the volume's own folder is not ours, so its mode and times cannot be set.
    for part in bundled.iterdir():
        shutil.copytree(part, runtime / part.name, symlinks=True, dirs_exist_ok=True)


def _make_base(config: Config, files: list[StartFile], start_files: Path) -> None:
    """A bare repository with one commit of the files, made anew each time."""
    shutil.rmtree(config.base, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=config.runtime) as folder:
        tree = Path(folder, "tree")
        tree.mkdir()
        _write(tree, files, start_files)
        made = Path(folder, "base.git")
        _git(config, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(made))
        (made / "info").mkdir()
        (made / "info" / "exclude").write_text(_EXCLUDE, encoding="utf-8")
        repository = {"GIT_DIR": str(made), "GIT_WORK_TREE": str(tree)}
        _git(config, "add", "--all", "--force", ".", folder=tree, repository=repository)
        content = _git(config, "write-tree", repository=repository)
        commit = _git(config, "commit-tree", "-m", "base", content, repository=repository)
        _git(config, "update-ref", "HEAD", commit, repository=repository)
        made.rename(config.base)


def _fill(config: Config, files: list[StartFile], start_files: Path) -> None:
    """The files, and a repository of the model's own beside them."""
    _write(config.workspace, files, start_files)
    own = config.workspace / ".git"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(config.base, own)
    repository = {"GIT_DIR": str(own), "GIT_WORK_TREE": str(config.workspace)}
    _git(config, "config", "core.bare", "false", repository=repository)
    # The copied index remembers other files' times. Refreshed once, it spares both repositories
    # reading every file again. Its time goes with it: git compares with it (racy-git).
    _git(config, "update-index", "-q", "--refresh", folder=config.workspace, repository=repository)
    shutil.copy2(own / "index", config.base / "index")


def _write(folder: Path, files: list[StartFile], start_files: Path) -> None:
    for file in files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(start_files / file.source, target)
        target.chmod(file.mode)


def _git(
    config: Config,
    *arguments: str,
    folder: Path | None = None,
    repository: Mapping[str, str] | None = None,
) -> str:
    program = bundle.command(config.runtime, "git")
    if program is None:
        raise NotPrepared(f"git is missing from the runtime {config.runtime}")
    identity = {f"GIT_{who}_{k}": v for who in ("AUTHOR", "COMMITTER") for k, v in _AUTHOR.items()}
    environment = {
        **bundle.GIT_ENVIRONMENT,
        "GIT_EXEC_PATH": str(config.runtime / "libexec" / "git-core"),
        "HOME": str(config.runtime),
        **identity,
        **(repository or {}),
    }
    done = subprocess.run(
        [*program, "-c", "core.autocrlf=false", *arguments],
        env=environment, cwd=folder or config.runtime, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotPrepared(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="ratchet-prepare", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--files", type=Path, default=Path(protocol.FILES_DIR))
    parser.add_argument("--runtime", type=Path, default=Path(protocol.RUNTIME_DIR))
    parser.add_argument("--workspace", type=Path, default=Path(protocol.WORKSPACE))
    parser.add_argument("--task-uid", default=os.environ.get("RATCHET_TASK_UID"))
    options = parser.parse_args()
    if not options.task_uid:
        parser.error("the task's uid is missing: set RATCHET_TASK_UID or --task-uid")
    os.umask(0o002)
    config = Config(
        workspace=options.workspace, runtime=options.runtime, control=Path(protocol.CONTROL_DIR)
    )
    try:
        prepare(
            config, bundled=options.bundle, start_files=options.files, task_uid=options.task_uid
        )
    except (NotPrepared, OSError) as error:
        print(f"the sandbox could not be prepared: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
