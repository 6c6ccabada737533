"""The client of a sandbox's server: what the server can be asked, and what its answers mean.

One request is one try, but for a kept connection that turns out to be closed: aiohttp then sends
it once more. Repeating is safe: a key that is reserved is never run again. The server's
certificate is checked before anything is sent, the token included, since a pod's address may by
now belong to another pod.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, Field, ValidationError
from yarl import URL

from ratchet.core.conditions import Reason
from ratchet.core.facts import CallOrder, Enforcement, NetworkVerdict, Receipt
from ratchet.edges.certificates import Identity, pinned_context
from ratchet.ports import SandboxAway, SandboxRefused

PORT: Final = 8443
CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 10.0
"""How long an answer may take beyond the wait that was asked for."""
WAIT_S: Final = 25.0
"""Longest wait that the server grants in one request."""
DIFF_TIMEOUT_S: Final = 70.0
SOFT_TIMEOUT_S: Final = 30.0
"""How long a command is waited for before it is left running, where the model does not say."""
IDLE_CONNECTION_S: Final = 300.0
AWAY_CODES: Final = {
    "runner_away": Reason.SANDBOX_UNREACHABLE,
    "ledger_failed": Reason.SANDBOX_FAILED,
    "ledger_full": Reason.SANDBOX_DISK_FULL,
}
"""The server's own trouble, which may pass: the pod is to be looked at, then asked again."""

_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Info:
    """Which server, ledger and runner answer. `shell` is empty while no runner is connected."""

    task_uid: str
    ledger: str
    boot: str
    epoch: int
    shell: str


@dataclass(frozen=True, slots=True)
class Found:
    """A call as the ledger has it. Until it is finished the receipt's outcome is empty."""

    finished: bool
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Diff:
    """The workspace's changes: a git binary patch against the commit `base`.

    `upstream`: the commit that was cloned; empty where the workspace is not from a clone.
    """

    base: str
    patch: bytes
    sha256: str
    upstream: str = ""


def new_session() -> aiohttp.ClientSession:
    """A session for many sandboxes: connections are kept by address and certificate."""
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=IDLE_CONNECTION_S,
        # Where the peer is gone, asyncio before 3.12.7 waits 30 s for the end of its TLS (aiohttp's
        # documentation of this option, which it says newer versions have no need of).
        enable_cleanup_closed=sys.version_info < (3, 12, 7),
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


class SandboxClient:
    """Asks one sandbox server on behalf of one owner. Holds no connection of its own.

    `ledger` and `epoch` go with every request about calls; set them once they are known. All
    methods raise SandboxAway where there is no answer and SandboxRefused where it is no.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        pod: str,
        address: str,
        identity: Identity,
        server_name: str,
        epoch: int,
        port: int = PORT,
    ) -> None:
        self.pod = pod
        self.address = address
        self.epoch = epoch
        self.ledger = ""
        self._session = session
        self._url = URL.build(scheme="https", host=address, port=port)
        self._tls = pinned_context(identity.certificate)
        self._server_name = server_name
        self._headers = {"Authorization": f"Bearer {identity.token}"}

    async def info(self) -> Info:
        found = await self._ask("GET", "/v1/info", _InfoBody)
        shell = found.runner.shell if found.runner.connected else None
        return Info(found.taskUid, found.ledger, found.boot, found.epoch, shell or "")

    async def raise_epoch(self) -> None:
        """Make our epoch the lowest that this sandbox still listens to."""
        await self._ask("PUT", "/v1/epoch", _EpochBody, body=self._fence())

    async def network(self, wait: float = WAIT_S) -> NetworkVerdict | None:
        """Whether the pod's network policy holds; None if that is still being tried after `wait`."""
        where, timeout_s = "/v1/network", wait + ANSWER_TIMEOUT_S
        query = {"wait": wait}
        found = await self._ask("GET", where, _NetworkBody, query=query, timeout_s=timeout_s)
        return found.found()

    async def submit(self, order: CallOrder, hard_timeout_s: float, wait: float = WAIT_S) -> Found:
        """Have the call run, unless its key is known. Answers when it has ended or `wait` is over."""
        body = {
            "tool": order.tool,
            "arguments": order.arguments,
            "digest": order.digest,
            "softTimeoutSeconds": min(SOFT_TIMEOUT_S, hard_timeout_s),
            "hardTimeoutSeconds": hard_timeout_s,
            **self._fence(),
        }
        return await self._record("PUT", _call(order.key), wait, body=body, query={"wait": wait})

    async def poll(self, key: str, wait: float = WAIT_S) -> Found | None:
        """The call as it is when it has ended or `wait` is over; None if it was never submitted."""
        query = {"wait": wait, **self._fence()}
        try:
            return await self._record("GET", _call(key), wait, query=query)
        except SandboxRefused as refused:
            if refused.code == "absent":
                return None
            raise

    async def cancel(self, key: str) -> Found | None:
        """Have the call's processes killed, and wait up to 5 s for that; None as in `poll`."""
        try:
            return await self._record("POST", _call(key) + "/cancel", 0, body=self._fence())
        except SandboxRefused as refused:
            if refused.code == "absent":
                return None
            raise

    async def diff(self) -> Diff:
        """All changes since the base commit. SandboxRefused `too_large` above 5 MiB."""
        found = await self._ask("GET", "/v1/diff", _DiffBody, timeout_s=DIFF_TIMEOUT_S)
        try:
            patch = base64.b64decode(found.patch, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._nonsense("GET /v1/diff", "the patch is not base64") from error
        if hashlib.sha256(patch).hexdigest() != found.sha256:
            raise self._nonsense("GET /v1/diff", "the patch does not have its digest")
        return Diff(found.base, patch, found.sha256, found.upstream)

    async def read_file(self, path: str) -> bytes:
        """A file of the workspace, at most 1 MiB. SandboxRefused `not_found`, `bad_path`, ..."""
        where = f"/v1/files/{_quoted(path)}"
        _, data = await self._send("GET", where, timeout_s=DIFF_TIMEOUT_S)
        return data

    async def digest(self, path: str) -> str:
        """`sha256:<hex>` of a file of the workspace, an empty string if there is none."""
        where = f"/v1/digests/{_quoted(path)}"
        found = await self._ask("GET", where, _DigestBody, timeout_s=DIFF_TIMEOUT_S)
        return found.digest or ""

    # --- inside ---

    def _fence(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "ledger": self.ledger}

    async def _record(
        self,
        method: str,
        path: str,
        wait: float,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Found:
        timeout = wait + ANSWER_TIMEOUT_S
        found = await self._ask(
            method, path, _RecordBody, body=body, query=query, timeout_s=timeout
        )
        return found.found()

    async def _ask(
        self,
        method: str,
        path: str,
        shape: type[_Body],
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> _Body:
        _, data = await self._send(method, path, body=body, query=query, timeout_s=timeout_s)
        try:
            return shape.model_validate_json(data)
        except ValidationError as error:
            raise self._nonsense(f"{method} {path}", str(error.errors()[0]["msg"])) from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> tuple[int, bytes]:
        what = f"{method} {path}"
        try:
            async with self._session.request(
                method,
                self._url.join(URL(path, encoded=True)).with_query(query),
                data=None if body is None else json.dumps(body, ensure_ascii=False).encode(),
                headers=self._headers,
                ssl=self._tls,
                server_hostname=self._server_name,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            ) as answer:
                data = await answer.read()
        except aiohttp.ClientConnectorCertificateError as error:
            raise SandboxAway(
                f"{what}: what answers at {self.address} is not sandbox {self.pod}: "
                f"{error.certificate_error}. The pod's address was probably given to another pod"
            ) from error
        except TimeoutError as error:
            raise self._away(what, f"no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._away(what, f"{type(error).__name__}: {error}") from error
        if answer.status >= 400:
            raise self._refusal(what, answer.status, data)
        return answer.status, data

    def _away(self, what: str, why: str) -> SandboxAway:
        return SandboxAway(
            f"{what} at sandbox {self.pod} ({self.address}): {why}. The pod may be starting, "
            "restarting or gone; or a network policy is in the way"
        )

    def _nonsense(self, what: str, why: str) -> SandboxRefused:
        return SandboxRefused(
            "bad_answer",
            f"{what} at sandbox {self.pod}: the answer cannot be read: {why}. Operator and "
            "sandbox images must be of one release",
        )

    def _refusal(self, what: str, status: int, data: bytes) -> SandboxAway | SandboxRefused:
        try:
            found = _ErrorBody.model_validate_json(data)
        except ValidationError:
            return self._away(what, f"HTTP {status}: {data[:200]!r}")
        text = f"{what} at sandbox {self.pod}: {found.message}"
        if found.code in AWAY_CODES:
            return SandboxAway(text, AWAY_CODES[found.code])
        return SandboxRefused(found.code, text)


def _quoted(path: str) -> str:
    """A file's path within a URL's. Its dots are quoted too: `..` would be taken as the URL's own."""
    return quote(path, safe="/").replace(".", "%2E")


def _call(key: str) -> str:
    return f"/v1/calls/{quote(key, safe='/')}"


# --- the answers ---


class _RunnerBody(BaseModel):
    connected: bool
    shell: str | None = None


class _InfoBody(BaseModel):
    ledger: str
    boot: str
    epoch: int
    taskUid: str
    runner: _RunnerBody


class _EpochBody(BaseModel):
    epoch: int


class _NetworkBody(BaseModel):
    verdict: str
    message: str

    def found(self) -> NetworkVerdict | None:
        if self.verdict == "Probing":
            return None
        if self.verdict not in list(Enforcement):
            return NetworkVerdict(Enforcement.UNKNOWN, f"{self.verdict}: {self.message}")
        return NetworkVerdict(Enforcement(self.verdict), self.message)


class _DigestBody(BaseModel):
    digest: str | None


class _DiffBody(BaseModel):
    base: str
    patch: str
    sha256: str
    upstream: str = ""


class _ErrorBody(BaseModel):
    code: str
    message: str


class _MetaBody(BaseModel):
    exitCode: int | None = None
    truncated: bool = False
    spill: str | None = None
    durationMs: int = 0
    before: str | None = None
    notUtf8: bool = False


class _RecordBody(BaseModel):
    key: str
    state: str
    outcome: str | None
    """One of `Outcome`; another word, of a newer server, is for the core to doubt."""
    content: str
    meta: _MetaBody = Field(default_factory=_MetaBody)

    def found(self) -> Found:
        meta = self.meta
        return Found(
            finished=self.state == "Finished" and self.outcome is not None,
            receipt=Receipt(
                key=self.key,
                outcome=self.outcome or "",
                content=self.content,
                exit_code=meta.exitCode if abs(meta.exitCode or 0) < 2**31 else None,
                truncated=meta.truncated,
                spill=meta.spill or "",
                duration_ms=meta.durationMs,
                not_utf8=meta.notUtf8,
                before=meta.before or "",
            ),
        )
