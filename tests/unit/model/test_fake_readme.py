"""The scripts in the fake's README do what it says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sglang_fake import FakeSGLang, Script, Settings, parse_script

README = Path(__file__).parents[3] / "inference" / "fake" / "README.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", README.read_text(), re.M | re.S)
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    status: int
    body: Json
    text: str

    @property
    def choice(self) -> Json:
        assert self.status == 200, self.text
        found: Json = self.body["choices"][0]
        return found

    @property
    def said(self) -> tuple[str, list[str], str]:
        """Content, arguments of the calls, finish reason."""
        message = self.choice["message"]
        calls = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
        return message["content"], calls, self.choice["finish_reason"]


STATUSES = {
    **dict.fromkeys(("queue-full", "waiting-timeout", "running-timeout", "preempted"), 503),
    **{"context": 400, "wrong-key": 401, "internal": 500, "wrong-model": 404, "rate-limit": 429},
    **{"lost-worker": 500, "no-workers": 503},
}
REPLIES: dict[str, tuple[str, list[str], str]] = {
    "aborted": ("", [], "abort"),
    "no-call": ("I am done.", [], "stop"),
    "empty": ("", [], "stop"),
    "raw-markup": ('[TOOL_CALLS]bash[ARGS]{"command": "ls"}', [], "stop"),
    "lost-call": ("", [], "stop"),
    "lost-text": ("The marker", [], "stop"),
    "cut-json": ("", [], "length"),
    "cut-arguments": ("", ['{"comm'], "length"),
    "unknown-tool": ("", [], "stop"),
    "two-calls": ("", ['{"command": "a"}', '{"command": "b"}'], "tool_calls"),
    "same-id": ("", ["{}", "{}"], "tool_calls"),
}
LOST = ("cut", "disconnect", "crash")
SILENT = ("hang", "stall")
OTHER = ("broken-json", "pause", "drain")


def faults() -> Script:
    return parse_script(BLOCKS[1])


def fake(**settings: Any) -> FakeSGLang:
    known: Json = {"crash_linger_s": 0.1, "drain_linger_s": 0.1, "disconnect_poll_s": 0.1}
    return FakeSGLang(faults(), Settings(**{**known, **settings}))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def hear(http: aiohttp.ClientSession, server: FakeSGLang, name: str) -> Heard:
    words = "cut-body" if name == "cut" else name
    body = {"messages": [{"role": "user", "content": f"The fault {words}."}], "tools": TOOLS}
    async with http.post(f"{server.base_url}/chat/completions", json=body) as response:
        text = await response.text()
        is_json = response.content_type == "application/json" and name != "broken-json"
        return Heard(response.status, await response.json() if is_json else {}, text)


def test_every_yaml_of_the_readme_is_a_script_and_every_fault_has_a_test() -> None:
    assert len([parse_script(block) for block in BLOCKS]) == 2
    names = {conversation.name for conversation in faults().conversations}
    assert names == {*STATUSES, *REPLIES, *LOST, *SILENT, *OTHER}


@pytest.mark.parametrize("name", STATUSES)
async def test_a_fault_that_is_an_error(name: str, http: aiohttp.ClientSession) -> None:
    async with fake() as server:
        assert (await hear(http, server, name)).status == STATUSES[name]


@pytest.mark.parametrize("name", REPLIES)
async def test_a_fault_that_looks_like_an_answer(name: str, http: aiohttp.ClientSession) -> None:
    async with fake() as server:
        heard = await hear(http, server, name)
    assert heard.said == REPLIES[name]
    if name == "same-id":
        assert {c["id"] for c in heard.choice["message"]["tool_calls"]} == {"abc123def"}


async def test_an_unknown_tool_is_passed_on_if_told_so(http: aiohttp.ClientSession) -> None:
    async with fake(forward_unknown_tools=True) as server:
        assert (await hear(http, server, "unknown-tool")).said == ("", ["{}"], "tool_calls")


@pytest.mark.parametrize("name", LOST)
async def test_a_fault_that_loses_the_connection(name: str, http: aiohttp.ClientSession) -> None:
    async with fake() as server:
        with pytest.raises(aiohttp.ClientError):
            await hear(http, server, name)
        assert server.requests[0].outcome == "failed"


@pytest.mark.parametrize("name", SILENT)
async def test_a_fault_that_says_nothing_lasts_until_the_client_leaves(
    name: str, http: aiohttp.ClientSession
) -> None:
    async with fake() as server:
        asked = asyncio.create_task(hear(http, server, name))
        await server.wait_until(lambda _: server.in_flight == 1)
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done and server.in_flight == 1
        asked.cancel()
        await server.wait_until(lambda _: server.in_flight == 0)
        assert server.requests[0].outcome == "disconnected"


async def test_a_stalled_answer_has_begun(http: aiohttp.ClientSession) -> None:
    async with fake() as server:
        body = {"messages": [{"role": "user", "content": "stall"}]}
        async with http.post(f"{server.base_url}/chat/completions", json=body) as response:
            assert response.status == 200
            begun = await response.content.readany()
            assert b'"choices"' in begun and len(begun) < int(response.headers["Content-Length"])


@pytest.mark.parametrize("name", ["stall", "cut-body"])
async def test_a_stream_can_stall_and_be_cut_too(name: str, http: aiohttp.ClientSession) -> None:
    body = {"messages": [{"role": "user", "content": name}], "stream": True}
    async with fake() as server:
        async with http.post(f"{server.base_url}/chat/completions", json=body) as response:
            begun = await response.content.readany()
            assert response.status == 200 and begun.startswith(b"data: ")
            with pytest.raises(aiohttp.ClientPayloadError if name == "cut-body" else TimeoutError):
                await asyncio.wait_for(response.content.read(), 0.3)
        await server.wait_until(lambda _: server.in_flight == 0)


async def test_broken_json_is_a_200(http: aiohttp.ClientSession) -> None:
    async with fake() as server:
        heard = await hear(http, server, "broken-json")
    assert heard.status == 200 and heard.text.startswith('{"id"') and not heard.text.endswith("}")


async def test_a_pause_by_the_script_shows_in_ready_and_ends(http: aiohttp.ClientSession) -> None:
    async with fake() as server:
        asked = asyncio.create_task(hear(http, server, "pause"))
        async with asyncio.timeout(5):
            while await ready(http, server) != 503:
                pass
        assert (await asked).said == ("Well.", [], "stop")
        assert await ready(http, server) == 200


async def test_a_drain_by_the_script_answers_first(http: aiohttp.ClientSession) -> None:
    async with fake() as server:
        assert (await hear(http, server, "drain")).said == ("Well.", [], "stop")
        await asyncio.wait_for(server.ended.wait(), 5)
        with pytest.raises(aiohttp.ClientConnectionError):
            await ready(http, server)


async def ready(http: aiohttp.ClientSession, server: FakeSGLang) -> int:
    async with http.get(f"{server.url}/ready") as response:
        return response.status
