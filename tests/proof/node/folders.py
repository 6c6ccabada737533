"""The folders of one sandbox: what its pod's volumes are."""

from __future__ import annotations

import base64
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.prepare import prepare

Object = dict[str, Any]
PROGRAMS = ("git", "rg")


@dataclass(frozen=True, slots=True)
class Folders:
    """The volumes of one pod below one folder."""

    root: Path

    @property
    def secret(self) -> Path:
        return self.root / "secret"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def runtime(self) -> Path:
        return self.root / "runtime"

    @property
    def home(self) -> str:
        """HOME of everything that the runner's shell starts."""
        return str(Config(self.workspace, self.runtime, self.control).home)

    def make(self, secret: Object, user: int | None) -> None:
        """Make them, and put the Secret there. `user` is the runner's."""
        for folder in (self.secret, self.ledger, self.control, self.workspace, self.runtime):
            folder.mkdir(parents=True)
        self.root.chmod(0o711)
        self.secret.chmod(0o700)
        self.ledger.chmod(0o700)
        if user is not None:  # the word is read by its group, as with a pod's fsGroup
            os.chown(self.control, -1, user)
            self.control.chmod(0o2750)
        for name, value in secret["data"].items():
            (self.secret / name).write_bytes(base64.b64decode(value))

    def fill(self, files: Object, bundle: Path, task_uid: str, user: int | None) -> None:
        """Do what the init container does, with the ConfigMap of the start files."""
        start = self.root / "files"
        start.mkdir()
        for name, text in (files.get("data") or {}).items():
            (start / name).write_text(text)
        for name, value in (files.get("binaryData") or {}).items():
            (start / name).write_bytes(base64.b64decode(value))
        config = Config(self.workspace, self.runtime, self.control)
        prepare(config, bundled=bundle, start_files=start, task_uid=task_uid)
        if user is not None:
            for folder in (self.workspace, self.runtime):
                _give(folder, user)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def make_bundle(folder: Path) -> Path:
    """What the runner image brings along, out of this machine's programs."""
    (folder / "bin").mkdir(parents=True)
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is None:
            raise FileNotFoundError(f"a sandbox needs {name}: install it on this machine")
        (folder / "bin" / name).symlink_to(found)
    return folder


def _give(folder: Path, user: int) -> None:
    for parent, folders, files in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in (*folders, *files))):
            os.chown(path, user, user, follow_symlinks=False)
