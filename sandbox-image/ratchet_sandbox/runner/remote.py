"""How git reaches a remote repository: one protocol, one credential, nothing of anybody's own.

The credential is read from the mounted Secret. git asks for it by a program (GIT_ASKPASS, GIT_SSH)
that is made in a folder of the container's own, so that it is in no environment, no command line
and no configuration. With a credential no redirect is followed: it would go to where the server
says (http.followRedirects in git-config(1), which holds for alternates too).
"""

import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

PORTS: Final = {"http": 80, "https": 443, "ssh": 22}
USERNAME: Final = "x-access-token"
"""Sent with a token that has no user name: what GitHub asks for, and what others do not look at."""
CONNECT_S: Final = 10.0
_SSH_OPTIONS: Final = (
    "BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no",
    "GlobalKnownHostsFile=/dev/null", "PasswordAuthentication=no", "ClearAllForwardings=yes",
    "PermitLocalCommand=no", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4",
    "LogLevel=ERROR",
)  # fmt: skip


class CloneFailed(Exception):
    """The repository cannot be cloned. `lasting`: not unless somebody changes something."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Source:
    """What to clone. An empty `ref` is the remote's default branch, no `depth` all history."""

    url: str
    ref: str = ""
    depth: int | None = None
    secret: str = ""
    """Name of the Secret, for sentences; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Where git finds what it needs for remotes: its helpers, ssh, libraries, authorities."""

    helpers: Path
    ssh: Path
    libraries: str = ""
    authorities: Path | None = None
    path: str = "/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Credential:
    """The keys of the Secret that are there, by name."""

    keys: dict[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> "Credential":
        """The keys in a mounted Secret; none if there is no such folder."""
        files = [path for path in folder.glob("*") if path.is_file()]
        return cls({path.name: path.read_bytes() for path in files})

    @property
    def password(self) -> bytes | None:
        return self.keys.get("password", self.keys.get("token"))

    @property
    def words(self) -> Iterator[str]:
        """What no message may hold."""
        for name in ("password", "token"):
            if text := self.keys.get(name, b"").decode("utf-8", "replace").strip():
                yield text


def address(source: Source) -> SplitResult:
    """The parts of the URL. Raises CloneFailed for one that is not to be used."""
    try:
        parts = urlsplit(source.url)
        good = parts.scheme in PORTS and parts.hostname and parts.port != 0
        bare = not parts.password and (parts.scheme == "ssh" or not parts.username)
    except ValueError:
        good = bare = False
    if good and bare and not parts.netloc.startswith("-"):
        return parts
    raise CloneFailed(
        f"{source.url!r} is no URL of a repository: write it like https://git.example.com/team/x.git "
        "or ssh://git@git.example.com/team/x.git, without a password", lasting=True,
    )  # fmt: skip


def check_secret(source: Source, credential: Credential) -> None:
    """Raise CloneFailed unless the Secret has what this protocol needs."""
    keys, scheme = credential.keys, address(source).scheme
    wanted = ("ssh-privatekey", "known_hosts") if scheme == "ssh" else ()
    missing = [key for key in wanted if key not in keys]
    if missing:
        where = (
            f"Secret {source.secret!r} has no" if source.secret else "spec.git.secretRef names no"
        )
        raise CloneFailed(
            f"{where} {' and no '.join(missing)}, which an ssh URL needs: add it", lasting=True
        )
    if source.secret and scheme != "ssh" and credential.password is None and "ca.crt" not in keys:
        raise CloneFailed(
            f"Secret {source.secret!r} has neither password nor token, which an http URL needs: "
            "add one of them", lasting=True,
        )  # fmt: skip


def options(source: Source, credential: Credential, tools: Tools, scratch: Path) -> list[str]:
    """Settings of every git command that talks to the remote."""
    chosen = {
        "credential.helper": "",
        "core.fsmonitor": "false",
        "submodule.recurse": "false",
        "fetch.unpackLimit": "1",  # always one pack, whose size can be bounded
        "gc.auto": "0",
        "maintenance.auto": "false",
        "pack.threads": "1",
        "core.bigFileThreshold": "32m",
        "http.followRedirects": "false" if source.secret else "initial",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "60",
    }
    authorities = scratch / "ca.crt" if "ca.crt" in credential.keys else tools.authorities
    if authorities:
        chosen["http.sslCAInfo"] = str(authorities)
    return [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]


def environment(
    source: Source, credential: Credential, tools: Tools, scratch: Path
) -> dict[str, str]:
    """Make the programs that answer git, and say where they are."""
    for name, value in credential.keys.items():
        # ssh takes no key whose last line does not end, and none that others may read.
        _write(scratch / name, value if value.endswith(b"\n") else value + b"\n", 0o600)
    ssh = [str(tools.ssh), "-F", "/dev/null", "-i", str(scratch / "ssh-privatekey")]
    for option in (*_SSH_OPTIONS, f"UserKnownHostsFile={scratch / 'known_hosts'}"):
        ssh += ["-o", option]
    _script(scratch / "ssh", f"os.execv({str(tools.ssh)!r}, {ssh!r} + sys.argv[1:])")
    _write(scratch / "name", credential.keys.get("username", USERNAME.encode()), 0o600)
    _write(scratch / "word", credential.password or b"", 0o600)
    answer = "'name' if sys.argv[1].startswith('Username') else 'word'"
    _script(scratch / "ask", f"print(open({str(scratch)!r} + '/' + ({answer})).read().strip())")
    return {
        "PATH": tools.path,
        "HOME": str(scratch),
        "GIT_EXEC_PATH": str(tools.helpers),
        "GIT_ALLOW_PROTOCOL": address(source).scheme,
        "GIT_ASKPASS": str(scratch / "ask"),
        "GIT_SSH": str(scratch / "ssh"),
        "GIT_SSH_VARIANT": "ssh",
        **({"LD_LIBRARY_PATH": tools.libraries} if tools.libraries else {}),
    }


def connect(source: Source, patience_s: float) -> None:
    """See that somebody listens. Raises CloneFailed, long before git would give up by itself."""
    parts = address(source)
    host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    end = time.monotonic() + patience_s
    while True:
        try:
            socket.create_connection((host, port), timeout=CONNECT_S).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise CloneFailed(_unreachable(host, port, error), lasting=False) from error
        time.sleep(1)


def _unreachable(host: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return (
            f"the name {host} cannot be resolved ({error.strerror}): sandboxes have DNS only where "
            "their SandboxClass has an egress rule with a host or a service"
        )
    why = "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error)
    return (
        f"{host} port {port} cannot be connected to ({why}): see that the server is up and that "
        "an egress rule of the SandboxClass allows it"
    )


_CAUSES: Final[tuple[tuple[tuple[str, ...], str, bool], ...]] = (
    (("Host key verification failed",),
     "the server's host key is not in known_hosts of the Secret: add the line that "
     "`ssh-keyscan HOST` prints, after you have checked it", True),
    (("Permission denied (", "Too many authentication failures", "Authentication failed",
      "could not read Username", "could not read Password", "error: 401", "error: 403"),
     "the server refuses the credential, or asks for one: check the Secret that spec.git.secretRef "
     "names", True),
    (("error: 301", "error: 302", "error: 303", "error: 307", "error: 308"),
     "the server sends us elsewhere, which is not followed with a credential: give the URL that it "
     "names", True),
    (("certificate",),
     "the server's certificate is not trusted: put its authority into ca.crt of the Secret", True),
    (("error: 5",), "the server has trouble", False),
    (("not found", "does not appear to be a git repository", "is this a git repository",
      "no such repository", "does not exist"),
     "there is no such repository, or the credential does not show it", True),
)  # fmt: skip


def cause(errors: str) -> CloneFailed:
    """What git's own words mean (git 2.39 with curl and OpenSSH; LC_ALL=C)."""
    last = " ".join(errors.split())[-400:] or "git gave no reason"
    for signs, sentence, lasting in _CAUSES:
        if any(sign.lower() in errors.lower() for sign in signs):
            return CloneFailed(f"{sentence} (git: {last})", lasting=lasting)
    return CloneFailed(f"git says: {last}", lasting=False)


def _script(path: Path, text: str) -> None:
    _write(path, f"#!{sys.executable} -I\nimport os, sys\n{text}\n".encode(), 0o700)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    path.write_bytes(data)
    path.chmod(mode)
