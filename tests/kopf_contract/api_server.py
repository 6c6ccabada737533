"""A small API server over loopback HTTP: discovery, list and watch, with faults at will.

A double of the watch protocol and of nothing else: writes are noted and refused. It imitates what
`test_api_server.py` shows of a real one: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.kopf_contract.api_shapes import (
    Asked,
    Change,
    Object,
    Resource,
    fits,
    groups_of,
    read_request,
    resources_of,
    seen_by,
    status,
)
from tests.kopf_contract.bell import Bell

NAMESPACE = "work"


@dataclass(slots=True)
class Fault:
    """An answer in place of the true one, for requests of one verb and resource."""

    verb: str
    plural: str
    code: int
    """The status; 0 breaks the connection."""
    times: float
    headers: Mapping[str, str]


@dataclass(eq=False, slots=True)
class Stream:
    """A watch that is open. What is queued is sent; b"" ends it, None breaks the connection."""

    asked: Asked
    queue: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    silent: bool = False

    def send(self, event: Object) -> None:
        """Send an event, unless the connection is one of those that only seem to live."""
        if not self.silent:
            self.queue.put_nowait(json.dumps(event).encode() + b"\n")

    def tell(self, change: Change) -> None:
        """Send a change as a watch with this selector sees it, if it does."""
        if (event := seen_by(self.asked, change)) is not None:
            self.send(event)


@dataclass(slots=True)
class ApiServer:
    """Serves objects that a test creates, changes and deletes. Use as `async with`."""

    resources: list[Resource]
    bell: Bell = field(default_factory=Bell)
    asked: list[Asked] = field(default_factory=list)
    """All requests, in order."""
    streams: list[Stream] = field(default_factory=list)
    """The watches that are open now."""
    faults: list[Fault] = field(default_factory=list)
    tokens: set[str] = field(default_factory=lambda: {"first"})
    """The bearer tokens that are valid."""
    port: int = 0
    _objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    _history: list[Change] = field(default_factory=list)
    _version: int = 1000
    _forgotten: int = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> ApiServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a stop, at the same port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Break all connections and refuse new ones. The objects stay."""
        self.break_off()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    # --- what a test does to objects -------------------------------------------------------------

    def create(self, plural: str, name: str, *, namespace: str = NAMESPACE, **parts: Any) -> Object:
        """Create an object; `parts` are its top-level fields, `metadata` is added to."""
        resource = next(r for r in self.resources if r.plural == plural)
        found: Object = {
            "apiVersion": resource.group_version,
            "kind": resource.kind,
            **parts,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                **parts.get("metadata", {}),
            },
        }
        assert (plural, namespace, name) not in self._objects
        return self._write("ADDED", plural, found, None)

    def change(self, plural: str, name: str, *, namespace: str = NAMESPACE, **parts: Any) -> Object:
        """Change top-level fields of an object; `metadata` is added to."""
        before = self._objects[plural, namespace, name]
        metadata = {**before["metadata"], **parts.get("metadata", {})}
        return self._write("MODIFIED", plural, {**before, **parts, "metadata": metadata}, before)

    def delete(self, plural: str, name: str, *, namespace: str = NAMESPACE) -> None:
        """Remove an object at once."""
        before = self._objects[plural, namespace, name]
        self._write("DELETED", plural, before, before)

    # --- what a test does to watches -------------------------------------------------------------

    def watches(self, plural: str) -> list[Stream]:
        """The open watches of a resource."""
        return [stream for stream in self.streams if stream.asked.plural == plural]

    def count(self, verb: str, plural: str) -> int:
        """How many requests there were of a verb and resource."""
        return sum(asked.verb == verb and asked.plural == plural for asked in self.asked)

    def fail(
        self,
        verb: str,
        plural: str,
        code: int,
        times: float = float("inf"),
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Answer requests of a verb and resource with an error; take it out of `faults` to end it."""
        fault = Fault(verb, plural, code, times, headers or {})
        self.faults.append(fault)
        return fault

    def send(self, plural: str, event: Object) -> None:
        """Send an event of any kind to the open watches of a resource."""
        for stream in self.watches(plural):
            stream.send(event)

    def send_bookmark(self, plural: str) -> str:
        """Tell the open watches how far they are; the version is returned."""
        self._version += 1
        resource = next(r for r in self.resources if r.plural == plural)
        meta = {"resourceVersion": str(self._version), "creationTimestamp": None}
        head = {"apiVersion": resource.group_version, "kind": resource.kind}
        self.send(plural, {"type": "BOOKMARK", "object": {**head, "metadata": meta}})
        return str(self._version)

    def fall_silent(self) -> None:
        """Send nothing more on the connections that are open, and leave them open."""
        for stream in self.streams:
            stream.silent = True

    def end_watches(self, last: bytes = b"", plural: str = "") -> None:
        """End open watches, all or those of a resource, as at their timeout, after some last bytes."""
        for stream in self.watches(plural) if plural else self.streams:
            if last:
                stream.queue.put_nowait(last)
            stream.queue.put_nowait(b"")

    def break_off(self) -> None:
        """Break the connections of the open watches."""
        for stream in self.streams:
            stream.queue.put_nowait(None)

    def forget_history(self) -> None:
        """Have no version before now any more: a watch from there gets 410."""
        self._version += 1
        self._forgotten = self._version
        self._history.clear()

    # --- requests --------------------------------------------------------------------------------

    def _write(self, kind: str, plural: str, found: Object, before: Object | None) -> Object:
        self._version += 1
        now = copy.deepcopy(found)
        now["metadata"]["resourceVersion"] = str(self._version)
        meta = now["metadata"]
        key = (plural, meta["namespace"], meta["name"])
        if kind == "DELETED":
            del self._objects[key]
        else:
            self._objects[key] = now
        change = Change(self._version, kind, plural, now, before)
        self._history.append(change)
        for stream in self.watches(plural):
            stream.tell(change)
        return now

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = read_request(request)
        self.asked.append(asked)
        self.bell.ring()
        if asked.token not in self.tokens:
            return _refusal(401, "Unauthorized")
        if (fault := self._fault_of(asked)) is not None:
            if fault.code == 0 and request.transport is not None:
                request.transport.abort()
            return _refusal(fault.code, "Fault", fault.headers)
        if asked.verb == "discovery":
            return self._discover(asked.path)
        if asked.verb not in ("list", "watch"):
            return _refusal(405, "MethodNotAllowed")
        resource = self._resource(asked)
        if resource is None:
            return _not_served()
        if asked.verb == "watch":
            return await self._watch(request, asked)
        return self._list(resource, asked)

    def _fault_of(self, asked: Asked) -> Fault | None:
        for fault in self.faults:
            if (fault.verb, fault.plural) == (asked.verb, asked.plural) and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _resource(self, asked: Asked) -> Resource | None:
        for resource in self.resources:
            if resource.plural == asked.plural and asked.path.startswith(f"{resource.root}/"):
                return resource
        return None

    def _discover(self, path: str) -> web.Response:
        if path == "/api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            return web.json_response(groups_of(self.resources))
        served = [resource for resource in self.resources if resource.root == path]
        return web.json_response(resources_of(served)) if served else _not_served()

    def _list(self, resource: Resource, asked: Asked) -> web.Response:
        items = []
        for (plural, _, _), found in self._objects.items():
            if plural == asked.plural and fits(asked, found):
                items.append({k: v for k, v in found.items() if k not in ("kind", "apiVersion")})
        return web.json_response(
            {
                "apiVersion": resource.group_version,
                "kind": f"{resource.kind}List",
                "metadata": {"resourceVersion": str(self._version)},
                "items": items,
            }
        )

    async def _watch(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        stream = Stream(asked)
        since = int(asked.query["resourceVersion"])
        if since < self._forgotten:
            message = f"too old resource version: {since} ({self._forgotten})"
            stream.send({"type": "ERROR", "object": status(410, "Expired", message)})
            stream.queue.put_nowait(b"")
        for change in self._history:
            if change.version > since and change.plural == asked.plural:
                stream.tell(change)
        self.streams.append(stream)
        self.bell.ring()
        try:
            return await _pour(request, stream)
        finally:
            self.streams.remove(stream)
            self.bell.ring()


async def _pour(request: web.Request, stream: Stream) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    while data := await stream.queue.get():
        await answer.write(data)
    if data is None and request.transport is not None:
        request.transport.abort()
    return answer


def _not_served() -> web.Response:
    """As a real server says it: no Status object."""
    return web.Response(text="404 page not found\n", status=404)


def _refusal(code: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(status(code, reason), status=code, headers=headers)
