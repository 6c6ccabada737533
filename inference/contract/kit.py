"""The server under test, requests to it, and the recordings that the tests compare it with."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

Json = dict[str, Any]
RECORDINGS = Path(__file__).parents[2] / "tests" / "fixtures" / "sglang"
RECORDED_MODEL = "smollm2-135m"
LONG = "Tell me an endless story, never stop."
"""A question whose answer takes long, with `long_answer`. The fake takes a minute for it."""

recorded = pytest.mark.recorded
unrecorded = pytest.mark.unrecorded
needs = pytest.mark.needs
disruptive = pytest.mark.disruptive


def recording(name: str) -> Json:
    """One file of the recordings, without its ending."""
    loaded: Json = json.loads((RECORDINGS / f"{name}.json").read_text())
    return loaded


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is None where it is not JSON."""

    status: int
    headers: Mapping[str, str]
    body: Json | None
    text: str
    took_s: float

    @property
    def json(self) -> Json:
        assert self.body is not None, f"{self.status}: {self.text[:300]}"
        return self.body

    @property
    def choice(self) -> Json:
        """The only choice of a completion."""
        assert self.status == 200, f"{self.status}: {self.text[:300]}"
        [choice] = self.json["choices"]
        found: Json = choice
        return found

    @property
    def events(self) -> list[Json]:
        """The events of a stream, without the [DONE] at its end."""
        return events(self.text)

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Name and arguments of each tool call."""
        calls = self.choice["message"].get("tool_calls") or ()
        return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


@dataclass(frozen=True, slots=True)
class Server:
    """A server: its root URL, the model that it serves, its keys, and how slow it is to notice.

    `disconnect_s` is the period at whose multiples SGLang looks after clients, `health_s` how long
    /health takes when it fails. Both are 4 s and 20 s for a real server, and shorter for the fake.
    """

    url: str
    http: aiohttp.ClientSession
    model: str
    context: int
    cache_report: bool
    key: str | None = None
    admin_key: str | None = None
    disconnect_s: float = 4.0
    health_s: float = 20.0

    async def send(self, request: Json, key: str | None = "") -> Answer:
        """Send a request in the form of a recording, with the model's name put in. `key` None
        sends none, and the default is the server's own."""
        body = request.get("body")
        if isinstance(body, dict) and body.get("model") == RECORDED_MODEL:
            body = {**body, "model": self.model}
        data = request.get("body_raw", None if body is None else json.dumps(body))
        headers = dict(request.get("headers") or {})
        chosen = self.key if key == "" else key
        if chosen is not None:
            headers["authorization"] = f"Bearer {chosen}"
        begun = time.monotonic()
        async with self.http.request(
            request["method"], self.url + request["path"], data=data, headers=headers
        ) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            loaded = json.loads(text) if is_json and text else None
            took = time.monotonic() - begun
            return Answer(response.status, response.headers, loaded, text, took)

    async def get(self, path: str) -> Answer:
        return await self.send({"method": "GET", "path": path})

    async def order(self, path: str, **body: Any) -> Answer:
        """A POST that manages the server; with the admin key, where there is one."""
        headers = {"content-type": "application/json"}
        request = {"method": "POST", "path": path, "headers": headers, "body": body}
        return await self.send(request, self.admin_key or self.key)

    async def ask(self, text: str = "Hello.", **body: Any) -> Answer:
        """A chat request."""
        return await self.send(chat(text, **body))

    async def long_answer(self, rid: str, **body: Any) -> asyncio.Task[Answer]:
        """A request that runs for long, or waits; returns when the server has it."""
        before = await self.requests()
        most = min(4000, self.context // 2)
        asked = self.ask(LONG, rid=rid, ignore_eos=True, max_tokens=most, **body)
        task = asyncio.create_task(asked)
        async with asyncio.timeout(10):
            while await self.requests() == before:  # noqa: ASYNC110 (another process's state)
                await asyncio.sleep(0.02)
        return task

    async def requests(self) -> int:
        """Requests that run or wait. Nobody else should use the server meanwhile."""
        load = await self.load()
        found: int = load["num_running_reqs"] + load["num_waiting_reqs"]
        return found

    async def in_use(self, rid: str) -> bool:
        """Whether a request of this rid runs or waits: a second one of it is refused then."""
        answer = await self.ask(rid=rid, max_tokens=1)
        return answer.status == 400 and "Duplicate request ID" in answer.text

    async def freed(self, rid: str, within_s: float) -> float:
        """Seconds until the rid is not in use any more. Raises TimeoutError."""
        begun = time.monotonic()
        async with asyncio.timeout(within_s):
            while await self.in_use(rid):  # noqa: ASYNC110 (another process's state)
                await asyncio.sleep(0.02)
        return time.monotonic() - begun

    async def load(self) -> Json:
        [rank] = (await self.get("/v1/loads")).json["loads"]
        found: Json = rank
        return found


def events(text: str) -> list[Json]:
    """The events of a stream that ended well, as the JSON that they carry."""
    *data, done = text.strip().split("\n\n")
    assert done == "data: [DONE]", f"the stream is cut: {text[-300:]}"
    return [json.loads(line.removeprefix("data: ")) for line in data]


def chat(text: str, **body: Any) -> Json:
    """A chat request of our own, in the form of a recording."""
    messages = [{"role": "user", "content": text}]
    return {
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": {"content-type": "application/json"},
        "body": {"model": RECORDED_MODEL, "messages": messages, "temperature": 0, **body},
    }


def forced(text: str) -> str:
    """The value of SGLang's `regex` field that leaves the model no choice but this text."""
    return re.sub(r"([^\w\s])", r"\\\1", text)


def fresh(name: str) -> str:
    """A rid or salt that nobody has used."""
    return f"contract-{name}-{uuid.uuid4().hex[:12]}"


def shape(value: Any) -> Any:
    """Field names and types. A list is as its first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def holds(found: Any, wanted: Any) -> bool:
    """Whether every field of `wanted` is in `found`, with a value of the same type."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            name in found and holds(found[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and (not wanted or not found or holds(found[0], wanted[0]))
    if isinstance(wanted, float | int) and not isinstance(wanted, bool):
        return isinstance(found, float | int)
    return wanted is None or type(found) is type(wanted)


def without_numbers(message: str) -> str:
    """A message without its token counts."""
    return re.sub(r"\d+", "N", message)
