"""The git repository that a task's workspace starts from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.api.base import Model, chars
from ratchet.api.common import NameRef

_URL = (
    r"^(https?://[A-Za-z0-9\[][^\s@/?#\\]*"
    r"|ssh://([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9\[][^\s@/?#\\]*)"
    r"/[^\s?#\\]+$"
)
_REF = r"^[^-\s~^:?*\[\\\x00-\x1f\x7f][^\s~^:?*\[\\\x00-\x1f\x7f]*$"


class GitSource(Model):
    """A git repository, cloned into the workspace before the first turn."""

    url: Annotated[str, chars(2048, least=8, pattern=_URL)]
    """Where the repository is: https://, http:// or ssh://, such as
    ssh://git@git.example.com/team/project.git, without a password. The SandboxClass must allow the
    connection by its egress rules. Required."""
    ref: Annotated[str, chars(255, least=1, pattern=_REF)] | None = None
    """Branch, tag or commit to check out. Default: the default branch of the repository."""
    secret_ref: NameRef | None = None
    """Secret with the credential, which the model never gets: username and password, or token, for
    http; ssh-privatekey and known_hosts for ssh; ca.crt for a private certificate authority.
    Default: none."""
    depth: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Commits of history to fetch, 1 to 1,000,000. Default: the whole history."""
