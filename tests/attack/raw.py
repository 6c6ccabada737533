"""The server of a sandbox, asked by hand: what no client of ours would send."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from ratchet.core.keys import call_digest, call_key, canonical
from ratchet.edges.certificates import pinned_context, server_name
from ratchet.edges.sandbox import PORT

from tests.e2e.box import Box

TIMEOUT_S = 40


@dataclass(slots=True)
class Raw:
    """Requests with the right token and certificate; everything else is the caller's."""

    session: aiohttp.ClientSession
    url: str
    name: str
    tls: ssl.SSLContext
    token: str
    uid: str
    ledger: str
    epoch: int = 1

    async def ask(
        self, method: str, path: str, *, body: Any = None, data: bytes | None = None, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer; `body` is sent as JSON, `data` as it is."""
        sent = json.dumps(body).encode() if data is None and body is not None else data
        async with self.session.request(
            method,
            f"{self.url}{path}",
            data=sent,
            headers={"Authorization": f"Bearer {self.token}"},
            ssl=self.tls,
            server_hostname=self.name,
            **more,
        ) as answer:
            text = await answer.read()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, {"text": text.decode(errors="replace")}

    def order(self, command: str, **more: Any) -> dict[str, Any]:
        """The body of a call of bash."""
        arguments = canonical({"command": command})
        return {
            "tool": "bash",
            "arguments": arguments,
            "digest": call_digest("bash", arguments),
            "softTimeoutSeconds": 30,
            "hardTimeoutSeconds": 60,
            "epoch": self.epoch,
            "ledger": self.ledger,
            **more,
        }

    def key(self, turn: int) -> str:
        """The key of the first call of a turn."""
        return call_key(self.uid, turn, 0)

    def path(self, turn: int) -> str:
        """Where that call is."""
        return f"/v1/calls/{self.key(turn)}"

    async def put(
        self, turn: int, command: str, wait: float = 20, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        """Submit a call and wait for its end."""
        body = self.order(command, **more)
        return await self.ask("PUT", f"{self.path(turn)}?wait={wait}", body=body)

    async def until_reserved(self, key: str) -> None:
        """Wait until a call has arrived."""
        path = f"/v1/calls/{key}?epoch={self.epoch}&ledger={self.ledger}"
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                status, _ = await self.ask("GET", path)
                if status == 200:
                    return
                await asyncio.sleep(0.05)

    async def info(self) -> dict[str, Any]:
        """Ids and epoch."""
        status, found = await self.ask("GET", "/v1/info")
        assert status == 200, found
        return found


@asynccontextmanager
async def raw(box: Box) -> AsyncIterator[Raw]:
    """The server of a sandbox that is ready."""
    secret = (await box.kubectl.get("secret", box.pod))["data"]
    certificate, token = (base64.b64decode(secret[name]).decode() for name in ("tls.crt", "token"))
    address = (await box.object())["status"]["podIP"]
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Raw(
            session,
            f"https://{address}:{PORT}",
            server_name(box.task.uid, box.ref.generation),
            pinned_context(certificate),
            token,
            box.task.uid,
            box.ref.ledger,
        )
