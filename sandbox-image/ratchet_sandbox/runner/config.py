"""Where the runner finds things: a small frozen value, so that tests run it anywhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ratchet_sandbox import protocol

HARD_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Config:
    """Folders, address and limits of one runner process."""

    workspace: Path
    """The task's files; relative paths of tools start here."""
    runtime: Path
    """The bundle that `prepare` put there: loader, libraries, git, ripgrep, base.git."""
    control: Path
    """Folder with the server's one-time `word`."""
    host: str = protocol.RUNNER_HOST
    port: int = protocol.RUNNER_PORT
    hard_timeout_s: float = HARD_TIMEOUT_S
    """Longest time a command may take, whatever is asked for."""
    adopts_orphans: bool = False
    """Every orphan of the shell becomes this process's child (PID 1 or subreaper)."""
    claim: Path | None = None
    """Where `prepare` keeps things for the next pod, on the workspace's claim; None without one."""

    @property
    def private(self) -> Path:
        """The runner's own folder in the workspace; never part of the task's patch."""
        return self.workspace / ".ratchet"

    @property
    def scratch(self) -> Path:
        """Files that live as long as one call."""
        return self.private / "run"

    @property
    def spill(self) -> Path:
        """Whole outputs of commands whose result had to be cut."""
        return self.private / "spill"

    @property
    def home(self) -> Path:
        """HOME of the model's commands."""
        return self.private / "home"

    @property
    def state(self) -> Path:
        """The shell's state after the last command."""
        return self.private / "shell-state"

    @property
    def base(self) -> Path:
        """The bare repository with the base commit."""
        return self.runtime / "base.git"

    @property
    def kept(self) -> Path:
        """What lives as long as the workspace and is out of the commands' reach."""
        return self.claim or self.runtime

    @property
    def clone(self) -> Path:
        """What the container that clones left for `prepare`: a bare repository."""
        return self.private / "clone.git"
