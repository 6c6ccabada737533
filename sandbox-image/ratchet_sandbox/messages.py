"""What the sandbox's server and its runner say to one another. Standard library only."""

import enum
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias


class Outcome(enum.StrEnum):
    """How a finished call ended."""

    OK = "Ok"
    """The tool did its work (bash: exit code 0)."""
    FAILED = "Failed"
    """It ran and says no: non-zero exit, file not found, search text not unique."""
    KILLED = "Killed"
    """Its process, or the shell, was killed before it ended."""
    TIMED_OUT = "TimedOut"
    """The hard timeout passed; the whole process session was killed."""
    STILL_RUNNING = "StillRunning"
    """The soft timeout passed; content is partial and the command goes on."""
    DENIED = "Denied"
    """Refused without being run (for example: busy)."""
    UNKNOWN = "Unknown"
    """It was reserved and the runner that had it is gone. Only the server says this."""


RUNNER_OUTCOMES: Final = frozenset(Outcome) - {Outcome.UNKNOWN}
"""What a runner may report."""


@dataclass(frozen=True, slots=True)
class Meta:
    """Facts about a result that are not for the model.

    `exit_code`: of a bash command that ended by itself. `truncated`: content was cut.
    `spill`: workspace path of the whole output. `before`, `after`: ``sha256:<hex>`` of the file
    that a file tool changed; None where there was none. `not_utf8`: not all bytes were UTF-8.
    """

    exit_code: int | None = None
    truncated: bool = False
    spill: str | None = None
    duration_ms: int = 0
    before: str | None = None
    after: str | None = None
    not_utf8: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a runner. `shell` names the runner process: a new process, a new id.

    `running`: keys it is working on. `finished`: keys whose results the server has not
    acknowledged; the server asks for each with `Resend`.
    """

    word: str
    protocol: int
    shell: str
    running: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The runner has begun with this call."""

    key: str


@dataclass(frozen=True, slots=True)
class Result:
    """The call ended. Kept by the runner until `Ack`."""

    key: str
    outcome: Outcome
    content: str
    meta: Meta = field(default_factory=Meta)


@dataclass(frozen=True, slots=True)
class Digests:
    """Answer to `Digest`: ``sha256:<hex>`` of the file's bytes, None if there is no such file."""

    id: str
    before: str | None


@dataclass(frozen=True, slots=True)
class Patch:
    """Answer to `Diff`. `patch`: base64 of a git binary patch; `size`: bytes before base64.

    `base`: the commit it applies to. `sha256`: hex digest of the patch's bytes. `upstream`: the
    commit that was cloned; empty where the workspace is not from a clone.
    """

    id: str
    base: str
    patch: str
    size: int
    sha256: str
    upstream: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """Answer to `Read`: base64 of the file's bytes."""

    id: str
    data: str


@dataclass(frozen=True, slots=True)
class Error:
    """Answer to `Digest`, `Diff` or `Read` that could not be served.

    Codes: ``not_found`` (no such file), ``too_large`` (with the size in `message`),
    ``bad_path`` (outside the workspace or not a regular file), ``failed`` (anything else).
    `size`: bytes there are, with ``too_large``.
    """

    id: str
    code: str
    message: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The word was right; the runner's connection is the one that counts."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run this tool once. `arguments` are validated; the runner fills in defaults."""

    key: str
    tool: str
    arguments: dict[str, Any]
    soft_timeout_seconds: float
    hard_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """Kill the process session of this call; its `Result` says Killed."""

    key: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The result of this call is on disk: forget it."""

    key: str


@dataclass(frozen=True, slots=True)
class Digest:
    """Ask for the digest of a file, path as the tool would take it."""

    id: str
    path: str


@dataclass(frozen=True, slots=True)
class Diff:
    """Ask for the workspace's changes since the base commit, untracked files included."""

    id: str


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for the bytes of a file of the workspace."""

    id: str
    path: str


@dataclass(frozen=True, slots=True)
class Resend:
    """Send the `Result` of this call again (after a `Hello` that listed it as finished)."""

    key: str


FromRunner: TypeAlias = Hello | Started | Result | Digests | Patch | File | Error
FromServer: TypeAlias = Welcome | Run | Cancel | Ack | Digest | Diff | Read | Resend
Message: TypeAlias = FromRunner | FromServer
