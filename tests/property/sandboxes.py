"""The way from an operator to its sandbox: the real port, over a pretended connection."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from ratchet.build.generation import Generation
from ratchet.build.settings import SandboxSettings
from ratchet.edges.kube import Api
from ratchet.edges.sandbox import ANSWER_TIMEOUT_S, SandboxClient
from ratchet.edges.sandboxes import KubeSandbox, KubeSandboxes
from ratchet.ports import TaskRef
from ratchet_sandbox import protocol
from ratchet_sandbox.server import refusal
from ratchet_sandbox.server.calls import Submission, parse_arguments
from ratchet_sandbox.server.ledger import Call, Record
from ratchet_sandbox.server.link import RunnerAway
from ratchet_sandbox.server.refusal import Refusal

from tests.property.network import Network, Sender, Way
from tests.property.pods import Pod, Server

SETTINGS = SandboxSettings("server:1", "runner:1", "ratchet-system")
TRIES_S = 2.5
"""How long a sandbox tries what its network policy denies."""
Query = Mapping[str, Any]
Reply = tuple[int, dict[str, Any]]


class PretendedSandboxes(KubeSandboxes):
    """Sandboxes whose pods are looked up among pretended ones, by uid."""

    def __init__(self, api: Api, network: Network, sender: Sender, pods: Mapping[str, Pod]) -> None:
        super().__init__(api, SETTINGS)
        self.network = network
        self.sender = sender
        self.running = pods

    def of(self, task: TaskRef, epoch: int) -> PretendedSandbox:
        return PretendedSandbox(self, task, epoch)


class PretendedSandbox(KubeSandbox):
    """The sandbox side of one claim; its client's connection is pretended."""

    _home: PretendedSandboxes

    async def _client_of(self, generation: Generation, pod: dict[str, Any]) -> SandboxClient | None:
        uid = pod["metadata"]["uid"]
        if self._known is not None and self._known[0] == uid:
            return self._known[1]
        if await self._home.pods.identity(generation) is None:
            return None
        client = PretendedClient(self._home, self._home.running[uid], self._epoch)
        self._known = uid, client
        return client


class PretendedClient(SandboxClient):
    """The real client, but for the bytes."""

    def __init__(self, home: PretendedSandboxes, pod: Pod, epoch: int) -> None:
        self.pod = pod.name
        self.address = "10.0.0.1"
        self.epoch = epoch
        self.ledger = ""
        self._home = home
        self._at = pod

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Query | None = None,
        query: Query | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> tuple[int, bytes]:
        what = f"{method} {path}"
        sender = self._home.sender

        def connect() -> Callable[[], Awaitable[Reply]]:
            # To this life of the server: what comes after a restart comes to nobody.
            server = self._at.server
            return lambda: self._served(server, what, query or {}, body or {})

        try:
            async with asyncio.timeout(timeout_s):
                status, found = await self._home.network.request(
                    sender, Way.SANDBOX, what, connect, silence=lambda why: self._away(what, why)
                )
        except TimeoutError as error:
            raise self._away(what, f"no answer within {timeout_s:g} s") from error
        data = json.dumps(found).encode()
        if status >= 400:
            raise self._refusal(what, status, data)
        return status, data

    async def _served(self, server: Server, what: str, query: Query, body: Query) -> Reply:
        """The server's answer, or nothing if it goes down before."""
        if server.down or not self._at.alive:
            raise self._away(what, "the connection was refused")
        request = asyncio.create_task(answer(self._at, server, what, query, body))
        server.requests[request] = None
        request.add_done_callback(lambda done: server.requests.pop(done, None))
        await asyncio.wait([request])
        if request.cancelled() or server.down:
            raise self._away(what, "the connection broke")
        return request.result()


async def answer(pod: Pod, server: Server, what: str, query: Query, body: Query) -> Reply:
    """What `ratchet_sandbox.server.api` does around the calls, without HTTP."""
    try:
        return 200, await _route(pod, server, what, query, body)
    except Refusal as no:
        return no.status, no.body
    except RunnerAway as error:
        away = refusal.runner_away(str(error))
        return away.status, away.body


async def _route(pod: Pod, server: Server, what: str, query: Query, body: Query) -> dict[str, Any]:
    method, path = what.split(" ")
    calls, parts = server.calls, unquote(path).split("/")[2:]
    wait = float(query.get("wait", 0))
    match method, parts:
        case "GET", ["info"]:
            return _info(pod, server)
        case "GET", ["network"]:
            await asyncio.sleep(TRIES_S)
            pod.confined = pod.network == "Enforced"
            return {"verdict": pod.network, "message": "It was tried."}
        case "PUT", ["epoch"]:
            calls.fence(body["epoch"], body["ledger"])
            return {"epoch": pod.ledger.epoch}
        case "PUT", ["calls", *key]:
            calls.fence(body["epoch"], body["ledger"])
            record = await calls.submit(_submission("/".join(key), body))
            return _shown(await calls.wait(record, wait))
        case "GET", ["calls", *key]:
            calls.fence(query["epoch"], query["ledger"])
            return _shown(await calls.wait(calls.find("/".join(key)), wait))
        case "POST", ["calls", *key, "cancel"]:
            calls.fence(body["epoch"], body["ledger"])
            return _shown(await calls.cancel("/".join(key)))
        case "GET", ["diff"]:
            patch = await server.link.ask(protocol.Diff, 60)
            assert isinstance(patch, protocol.Patch)
            return {"base": patch.base, "patch": patch.patch, "sha256": patch.sha256}
        case "GET", ["digests", *file]:
            found = await server.link.ask(lambda id: protocol.Digest(id, "/".join(file)), 30)
            assert isinstance(found, protocol.Digests)
            return {"digest": found.before}
        case _:
            raise AssertionError(f"the pretended server does not know {what}")


def _info(pod: Pod, server: Server) -> dict[str, Any]:
    session = server.link.session
    return {
        "ledger": pod.ledger.id,
        "boot": str(id(server)),
        "epoch": pod.ledger.epoch,
        "taskUid": pod.ledger.task_uid,
        "runner": {"connected": session is not None, "shell": session.shell if session else None},
    }


def _submission(key: str, body: Query) -> Submission:
    tool, arguments = body["tool"], body["arguments"]
    assert body["digest"] == "sha256:" + hashlib.sha256(f"{tool}\n{arguments}".encode()).hexdigest()
    call = Call(key, tool, arguments, body["digest"], body["epoch"])
    return Submission(call, parse_arguments(arguments), 300, 300)


def _shown(record: Record) -> dict[str, Any]:
    meta = record.meta
    return {
        "key": record.key,
        "state": record.state,
        "outcome": record.outcome,
        "content": record.content,
        "meta": {"exitCode": meta.exit_code, "before": meta.before, "notUtf8": meta.not_utf8},
    }
