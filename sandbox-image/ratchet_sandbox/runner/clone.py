"""The init container that fetches a task's git repository, and that alone has its credential.

    python3 -m ratchet_sandbox.runner.clone

It leaves a bare repository in the workspace's volume; `prepare` checks it out, in a container
without credential and network of its own. So nothing that comes out of the repository is looked at
here but sizes and names. Exit code 2: it fails until somebody changes something; 1: it may pass.
The one line on stderr says why, and becomes the container's termination message.
"""

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ratchet_sandbox import protocol
from ratchet_sandbox.runner import prepare, remote
from ratchet_sandbox.runner.base import NotPrepared
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.gitcommand import GitFailed, environment, words
from ratchet_sandbox.runner.remote import CloneFailed, Credential, Source, Tools

PASSING, LASTING = 1, 2
CLONE: Final = Path("/opt/ratchet/clone")
"""Where the runner image keeps what only this container needs."""
SCRATCH: Final = Path(protocol.GIT_SCRATCH_DIR)
TIMEOUT_S: Final = 600.0
MESSAGE_MAX: Final = 1500
"""Characters of the sentence; a termination message has at most 4096 bytes."""
_PARTIAL: Final = "cloning-"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_UNADVERTISED: Final = ("unadvertised object", "not our ref")
"""How a server says that it gives no commit that is not the tip of a branch or tag."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes that pack and checked-out files may have together, and how long the whole may take.

    `patience_s`: how long a first connection is tried; network policies are applied some seconds
    after a pod's start.
    """

    bytes: int
    seconds: float = TIMEOUT_S
    patience_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a ref turned out to be: the commit, the refspec that brings it, the branch if it is one."""

    commit: str
    refspec: str
    branch: str = ""


class Cloning:
    """One clone, into a new bare repository."""

    def __init__(
        self, source: Source, target: Path, runtime: Path, tools: Tools, secret: Path,
        scratch: Path, bounds: Bounds,
    ) -> None:  # fmt: skip
        self._source = source
        self._target = target
        self._credential = Credential.read(secret)
        remote.check_secret(source, self._credential)
        self._words = [
            *words(runtime), *remote.options(source, self._credential, tools, scratch)
        ]  # fmt: skip
        more = remote.environment(source, self._credential, tools, scratch)
        self._environment = environment(runtime, {**more, "GIT_DIR": str(target)})
        self._bounds = bounds
        self._ends = time.monotonic() + bounds.seconds

    def run(self) -> str:
        """Fetch, and return the commit. Raises CloneFailed, without a word of the credential."""
        try:
            return self._run()
        except CloneFailed as failed:
            text = str(failed)
            for secret in self._credential.words:
                text = text.replace(secret, "***")
            raise CloneFailed(text, lasting=failed.lasting) from None

    def _run(self) -> str:
        remote.connect(self._source, self._bounds.patience_s)
        self._git("init", "--quiet", "--bare", "--template=", "--initial-branch=main",
                  str(self._target))  # fmt: skip
        wanted = self._find()
        commit = self._fetch(wanted)
        self._measure(commit)
        self._arrange(wanted, commit)
        return commit

    # --- what is wanted ---

    def _find(self) -> Wanted:
        """Ask the remote what the ref is. Raises CloneFailed if it is nothing there."""
        ref = self._source.ref
        if _COMMIT.fullmatch(ref):
            return Wanted(ref, f"{ref}:refs/ratchet/upstream")
        patterns = [ref, f"refs/heads/{ref}", f"refs/tags/{ref}"] if ref else ["HEAD"]
        listed = self._git("ls-remote", "--symref", "--", self._source.url, *patterns)
        found, heads = _listed(listed.decode("utf-8", "replace"))
        names = (
            [f"refs/heads/{ref}", f"refs/tags/{ref}", ref] if ref else [heads.get("HEAD", "HEAD")]
        )
        if not ref and "HEAD" in found:
            found.setdefault(names[0], found["HEAD"])
        name = next((name for name in names if name in found), None)
        if name is None:
            raise CloneFailed(self._unknown(), lasting=True)
        branch = name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else ""
        kept = f"refs/remotes/origin/{branch}" if branch else "refs/ratchet/upstream"
        return Wanted(found[name], f"+{name}:{kept}", branch)

    def _unknown(self) -> str:
        if not self._source.ref:
            return "the repository has no default branch with a commit: name one in spec.git.ref"
        return (
            f"it has no branch or tag {self._source.ref!r}: write spec.git.ref as the repository has "
            "it; a commit is written with all of its digits"
        )

    # --- fetching ---

    def _fetch(self, wanted: Wanted) -> str:
        """Bring the objects. The commit of a branch is that of the fetch, however it has moved."""
        try:
            self._bring(wanted.refspec, depth=self._source.depth)
        except CloneFailed as failed:
            if wanted.branch or not any(sign in str(failed) for sign in _UNADVERTISED):
                raise
            self._bring("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
            self._take(wanted.commit)
        kept = wanted.refspec.split(":", 1)[1]
        commit = self._commit(kept)
        self._git("update-ref", "refs/ratchet/upstream", commit)
        return commit

    def _bring(self, *refspecs: str, depth: int | None = None) -> None:
        bounded = [f"--depth={depth}"] if depth else []
        self._git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head",
                  "--no-recurse-submodules", *bounded, "--", self._source.url, *refspecs)  # fmt: skip

    def _take(self, commit: str) -> None:
        try:
            self._git("update-ref", "refs/ratchet/upstream", self._commit(commit))
        except CloneFailed as failed:
            raise CloneFailed(f"it has no commit {commit}", lasting=True) from failed

    def _commit(self, name: str) -> str:
        return self._git("rev-parse", "--verify", f"{name}^{{commit}}").decode().strip()

    # --- what has come ---

    def _measure(self, commit: str) -> None:
        """Raise CloneFailed if the files do not fit, or would be in the way of our own."""
        entries = self._git("ls-tree", "-r", "-l", "-z", commit).split(b"\0")[:-1]
        size = _size_of(self._target)
        for entry in entries:
            facts, name = entry.split(b"\t", 1)
            size += int(facts.split()[3]) if facts.split()[3] != b"-" else 0
            if name.split(b"/")[0] == b".ratchet":
                raise CloneFailed(
                    "it has a .ratchet at its top, which is the name of the sandbox's own folder: "
                    "take a branch without it", lasting=True,
                )  # fmt: skip
        if size > self._bounds.bytes:
            raise self._too_large(f"history and files have {size} bytes")

    def _too_large(self, what: str) -> CloneFailed:
        return CloneFailed(
            f"it is too large: {what}, and {self._bounds.bytes} (three quarters of the workspace) "
            "are for it. Set spec.git.depth, or a larger workspace in the SandboxClass", lasting=True,
        )  # fmt: skip

    def _arrange(self, wanted: Wanted, commit: str) -> None:
        """Branch and remote as a user of git expects them."""
        if wanted.branch:
            self._git("symbolic-ref", "HEAD", f"refs/heads/{wanted.branch}")
            self._git("update-ref", f"refs/heads/{wanted.branch}", commit)
            self._set(f"branch.{wanted.branch}.remote", "origin")
            self._set(f"branch.{wanted.branch}.merge", f"refs/heads/{wanted.branch}")
        else:
            self._git("update-ref", "--no-deref", "HEAD", commit)
        self._set("remote.origin.url", self._source.url)
        self._set("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")

    def _set(self, name: str, value: str) -> None:
        self._git("config", "--", name, value)

    # --- git ---

    def _git(self, *arguments: str) -> bytes:
        """Run git within the bounds. Raises CloneFailed."""
        process = subprocess.Popen(
            [*self._words, *arguments], env=self._environment, cwd=self._target.parent,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, preexec_fn=self._bound,
        )  # fmt: skip
        try:
            output, errors = process.communicate(timeout=max(0.1, self._ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise CloneFailed(
                f"it took longer than {self._bounds.seconds:g} s: set spec.git.depth, or give a "
                "repository that is nearer", lasting=False,
            ) from None  # fmt: skip
        if process.returncode:
            raise self._failed(process.returncode, errors.decode("utf-8", "replace"))
        return output

    def _failed(self, code: int, errors: str) -> CloneFailed:
        if "File too large" in errors:
            return self._too_large("its history does not fit")
        if code < 0:
            return CloneFailed(
                f"git was killed by signal {-code}, perhaps for memory", lasting=False
            )
        return remote.cause(errors)

    def _bound(self) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # git then says "File too large"
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._bounds.bytes, self._bounds.bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def clone(
    config: Config, source: Source, *, runtime: Path, tools: Tools, secret: Path, bounds: Bounds
) -> str | None:  # fmt: skip
    """Leave the repository where `prepare` takes it; None if the workspace is prepared already.

    Raises CloneFailed.
    """
    if prepare.prepared_for(config) is not None:
        return None
    remote.address(source)
    config.private.mkdir(parents=True, exist_ok=True)
    for left in (config.clone, *config.private.glob(f"{_PARTIAL}*")):
        shutil.rmtree(left, ignore_errors=True)
    partial = tempfile.TemporaryDirectory(dir=config.private, prefix=_PARTIAL)
    with partial as folder, _scratch() as scratch:
        made = Path(folder, "clone.git")
        commit = Cloning(source, made, runtime, tools, secret, Path(scratch), bounds).run()
        made.rename(config.clone)
    return commit


def _scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for the credential: in memory where the pod gives one, gone with the clone."""
    return tempfile.TemporaryDirectory(dir=SCRATCH if SCRATCH.is_dir() else None)


def _listed(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Commits and symbolic targets by name, out of what ``git ls-remote --symref`` prints."""
    found, targets = {}, {}
    for row in text.splitlines():
        value, _, name = row.partition("\t")
        if value.startswith("ref: "):
            targets[name] = value.removeprefix("ref: ")
        else:
            found[name] = value
    return found, targets


def _size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _told(url: str, failed: CloneFailed) -> str:
    text = f"git repository {url}: {failed}"
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= MESSAGE_MAX else line[: MESSAGE_MAX - 1] + "…"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    os.umask(0o002)
    config = Config(
        workspace=options.workspace, runtime=options.bundle, control=Path(protocol.CONTROL_DIR),
        claim=options.kept,
    )  # fmt: skip
    tools = Tools(
        helpers=options.tools / "libexec" / "git-core",
        ssh=options.tools / "bin" / "ssh",
        libraries=f"{options.tools}/lib:{options.bundle}/lib",
        authorities=options.tools / "ca-certificates.crt",
    )
    source = Source(options.url, options.ref, options.depth, options.secret_name)
    try:
        commit = clone(
            config, source, runtime=options.bundle, tools=tools, secret=options.secret,
            bounds=Bounds(options.bytes, options.seconds),
        )  # fmt: skip
    except CloneFailed as failed:
        print(_told(source.url, failed), file=sys.stderr)
        return LASTING if failed.lasting else PASSING
    except (GitFailed, NotPrepared, OSError) as error:
        print(_told(source.url, CloneFailed(str(error), lasting=False)), file=sys.stderr)
        return PASSING
    print("the workspace is there already" if commit is None else f"fetched commit {commit}")
    return 0


def parser() -> argparse.ArgumentParser:
    """What the program takes; operator/ratchet/build writes it into the pod."""
    made = argparse.ArgumentParser(prog="ratchet-clone", description=__doc__)
    made.add_argument("--url", required=True)
    made.add_argument("--ref", default="")
    made.add_argument("--depth", type=int)
    made.add_argument("--secret-name", default="", help="for what is said about it")
    made.add_argument("--bytes", type=int, required=True, help="room for history and files")
    made.add_argument("--seconds", type=float, default=TIMEOUT_S)
    made.add_argument("--bundle", type=Path, default=prepare.BUNDLE)
    made.add_argument("--tools", type=Path, default=CLONE)
    made.add_argument("--secret", type=Path, default=Path(protocol.GIT_SECRET_DIR))
    made.add_argument("--workspace", type=Path, default=Path(protocol.WORKSPACE))
    made.add_argument("--kept", type=Path, help="folder with the workspace's marker",
                      default=os.environ.get("RATCHET_KEPT", protocol.RUNTIME_DIR))  # fmt: skip
    return made


if __name__ == "__main__":
    sys.exit(main())
