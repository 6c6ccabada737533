"""The list of users of the model's container: those that every Linux has, and the shell's own.

The pod lays it over the image's ``/etc/passwd``. The home is HOME: ssh goes by this one (ssh(1)).
"""

from pathlib import Path
from typing import Final

from ratchet_sandbox import protocol
from ratchet_sandbox.runner.config import Config

NAME: Final = "ratchet"
PASSWD: Final = "etc/passwd"
"""Below the runtime."""

_COMMON: Final = (
    ("root", 0, 0, "/root", "/bin/sh"),
    ("daemon", 1, 1, "/usr/sbin", "/usr/sbin/nologin"),
    ("bin", 2, 2, "/bin", "/usr/sbin/nologin"),
    ("sys", 3, 3, "/dev", "/usr/sbin/nologin"),
    ("mail", 8, 8, "/var/mail", "/usr/sbin/nologin"),
    ("www-data", 33, 33, "/var/www", "/usr/sbin/nologin"),
    ("nobody", 65534, 65534, "/nonexistent", "/usr/sbin/nologin"),
)


def write(config: Config) -> None:
    """Put the list into the runtime. Raises OSError."""
    own = (NAME, protocol.RUNNER_UID, protocol.SHARED_GID, str(config.home), "/bin/sh")
    path = config.runtime / Path(PASSWD)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(_line(*account) for account in (*_COMMON, own)), encoding="utf-8")
    path.chmod(0o644)


def _line(name: str, uid: int, gid: int, home: str, shell: str) -> str:
    """See passwd(5)."""
    return f"{name}:x:{uid}:{gid}::{home}:{shell}\n"
