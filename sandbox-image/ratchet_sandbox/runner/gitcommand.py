"""git of the bundle, run on a repository that is named, with nobody's configuration but its own."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from ratchet_sandbox.runner import bundle


class GitFailed(Exception):
    """A git command said no. `errors` is what it wrote about it."""

    def __init__(self, command: str, errors: str) -> None:
        super().__init__(f"git {command} failed: {errors}")
        self.errors = errors


def words(runtime: Path) -> list[str]:
    """The beginning of git's command line. Raises GitFailed if the runtime has no git."""
    program = bundle.command(runtime, "git")
    if program is None:
        raise GitFailed("", f"git is missing from the runtime {runtime}")
    return [*program, "-c", "core.autocrlf=false", "-c", "core.hooksPath=/dev/null"]


def environment(runtime: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a git command."""
    return {
        **bundle.GIT_ENVIRONMENT,
        "GIT_EXEC_PATH": str(runtime / "libexec" / "git-core"),
        "GIT_ATTR_NOSYSTEM": "1",
        "HOME": str(runtime),
        **more,
    }


def git(
    runtime: Path,
    *arguments: str,
    folder: Path,
    repository: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> bytes:
    """What the command prints. `repository`: GIT_DIR and its like. Raises GitFailed."""
    done = subprocess.run(
        [*words(runtime), *arguments], env=environment(runtime, repository or {}), cwd=folder,
        input=stdin, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise GitFailed(arguments[0], done.stderr.decode("utf-8", "replace").strip())
    return done.stdout


def line(answer: bytes) -> str:
    """The one line of an answer, such as a commit."""
    return answer.decode().strip()
