"""The init container: put the runtime, the start files and their base commit in place.

    python3 -m ratchet_sandbox.runner.prepare

A workspace that is already this task's is never touched; one of another task is refused.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ratchet_sandbox import protocol
from ratchet_sandbox.runner import accounts, base, home, kept
from ratchet_sandbox.runner.base import NotPrepared, StartFile
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.gitcommand import GitFailed, git

BUNDLE: Final = Path("/opt/ratchet/runtime")
"""Where the runner image keeps the runtime."""
MODES: Final = {"0644": 0o664, "0755": 0o775}
"""Modes of the manifest, and what is set: the group of the pod's containers may write too."""


def prepare(
    config: Config,
    *,
    bundled: Path,
    start_files: Path,
    task_uid: str,
    cloned: bool = False,
    linked: bool = False,
) -> None:
    """Make runtime, base repository and workspace ready. Raises NotPrepared.

    `linked`: the runner sees `bundled` at the same place, so that links to it will do.
    `cloned`: the workspace starts from a clone, which `clone` has left in it.
    """
    marker = kept.read(config)
    if marker is not None and marker.task != task_uid:
        raise NotPrepared(
            f"the workspace belongs to task {marker.task}, not to {task_uid}: give each task its own"
        )
    if marker is None:
        kept.begin(config, task_uid)
    (_link_runtime if linked else _copy_runtime)(bundled, config.runtime)
    accounts.write(config)
    if marker is not None and marker.complete:
        kept.restore(config)
        return
    files = manifest(start_files / "index.json")
    try:
        if cloned:
            _from_clone(config, files, start_files)
        else:
            _from_files(config, files, start_files)
        home.arrange(config)
        kept.keep(config, task_uid)  # last: it says that all is there
    except GitFailed as error:
        raise NotPrepared(str(error)) from error


def prepared_for(config: Config) -> str | None:
    """The uid of the task whose workspace this is, complete with its files; None if nobody's.

    Raises NotPrepared where that cannot be read.
    """
    marker = kept.read(config)
    return marker.task if marker is not None and marker.complete else None


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
        shutil.rmtree(runtime / part.name, ignore_errors=True)  # of an earlier start of the pod
        shutil.copytree(part, runtime / part.name, symlinks=True, dirs_exist_ok=True)


def _link_runtime(bundled: Path, runtime: Path) -> None:
    for part in bundled.iterdir():
        link = runtime / part.name
        link.unlink(missing_ok=True)
        link.symlink_to(part)


def _from_files(config: Config, files: Sequence[StartFile], start_files: Path) -> None:
    """The files, and a repository of the model's own beside them."""
    base.from_files(config, files, start_files)
    base.write(config.workspace, files, start_files)
    own = config.workspace / ".git"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(config.base, own)
    _share_index(config)


def _from_clone(config: Config, files: Sequence[StartFile], start_files: Path) -> None:
    """The clone, checked out with the files on top; its repository becomes the model's own."""
    if not config.clone.is_dir():
        raise NotPrepared(f"there is no clone in {config.clone}")
    base.from_clone(config, files, start_files)
    _clear(config)
    own = config.workspace / ".git"
    config.clone.rename(own)
    (own / "info").mkdir(exist_ok=True)
    shutil.copy2(config.base / "info" / "exclude", own / "info" / "exclude")
    run = partial(git, config.runtime, folder=config.workspace)
    repository = {"GIT_DIR": str(own), "GIT_WORK_TREE": str(config.workspace)}
    run("read-tree", "HEAD", repository=repository)
    run("checkout-index", "--all", "--quiet", repository=repository)
    _share_index(config)


def _clear(config: Config) -> None:
    """Take away what an interrupted preparation left: nothing of it is the task's yet."""
    for path in config.workspace.iterdir():
        if path == config.private:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _share_index(config: Config) -> None:
    """Refresh the index of the model's repository, and give the base repository the same.

    Refreshed once, it spares both reading every file again. Its time goes with it: git compares
    with it (racy-git).
    """
    own = config.workspace / ".git"
    run = partial(git, config.runtime, folder=config.workspace)
    repository = {"GIT_DIR": str(own), "GIT_WORK_TREE": str(config.workspace)}
    run("config", "core.bare", "false", repository=repository)
    run("update-index", "-q", "--refresh", repository=repository)
    shutil.copy2(own / "index", config.base / "index")


def main() -> int:
    parser = argparse.ArgumentParser(prog="ratchet-prepare", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--files", type=Path, default=Path(protocol.FILES_DIR))
    parser.add_argument("--runtime", type=Path, default=Path(protocol.RUNTIME_DIR))
    parser.add_argument("--workspace", type=Path, default=Path(protocol.WORKSPACE))
    parser.add_argument("--kept", type=Path, default=os.environ.get("RATCHET_KEPT"),
                        help="folder of the workspace's claim")  # fmt: skip
    parser.add_argument("--task-uid", default=os.environ.get("RATCHET_TASK_UID"))
    parser.add_argument("--cloned", action="store_true", help="the workspace starts from a clone")
    parser.add_argument("--link", type=Path, metavar="BUNDLE",
                        help="have links to this folder, which the runner sees too, and no copy")  # fmt: skip
    options = parser.parse_args()
    if not options.task_uid:
        parser.error("the task's uid is missing: set RATCHET_TASK_UID or --task-uid")
    os.umask(0o002)
    config = Config(
        workspace=options.workspace, runtime=options.runtime, control=Path(protocol.CONTROL_DIR),
        claim=options.kept,
    )  # fmt: skip
    try:
        prepare(
            config, bundled=options.link or options.bundle, start_files=options.files,
            task_uid=options.task_uid, cloned=options.cloned, linked=options.link is not None,
        )  # fmt: skip
    except (NotPrepared, OSError) as error:
        print(f"the sandbox could not be prepared: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
