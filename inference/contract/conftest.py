"""`--model-url` names the server; without it each test gets a fake of the options that it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from sglang_fake import FakeSGLang, Settings, ToolCallParser, check_script

from inference.contract.kit import LONG, RECORDED_MODEL, RECORDINGS, Json, Server

MARKERS = (
    "recorded(name): the recordings that back the test",
    "unrecorded(source): the line of SGLang's source that backs the test instead",
    "needs(option=value): how the server must have been started",
    "disruptive: other clients of the server would notice (--disruptive)",
)
# What the fake says: a long answer to one question, a short one to every other.
SCRIPT: Json = {
    "conversations": [
        {"match": {"contains": LONG}, "loop": True, "turns": [{"reply": {}, "delay_s": 60}]},
        {"loop": True, "turns": [{"reply": {"content": "The capital of France is Paris."}}]},
    ]
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("model server")
    group.addoption("--model-url", help="base URL of a server, with /v1 (default: fakes)")
    group.addoption("--model-key", help="its API key")
    group.addoption("--model-admin-key", help="its admin key, if it has one")
    group.addoption(
        "--disruptive", action="store_true", help="also pause the server and fill its queue"
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No assertion without its source."""
    for item in items:
        if item.path.parent != RECORDINGS.parents[2] / "inference" / "contract":
            continue
        names = [name for mark in item.iter_markers("recorded") for name in mark.args]
        missing = [name for name in names if not (RECORDINGS / f"{name}.json").is_file()]
        if missing or not (names or item.get_closest_marker("unrecorded")):
            raise pytest.UsageError(
                f"{item.nodeid} must name the recordings that back it, or SGLang's source"
                + (f"; there is no {missing}" if missing else "")
            )


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """The server under test, started as the test needs it."""
    mark = request.node.get_closest_marker("needs")
    needed: Json = dict(mark.kwargs) if mark else {}
    url = request.config.getoption("--model-url", None)
    async with aiohttp.ClientSession() as http:
        if url is None:
            async with fake(needed) as running:
                yield await found(running.url, http, health_s=0.2, disconnect_s=0.4, **keys(needed))
            return
        alone = request.config.getoption("--disruptive", None)
        if request.node.get_closest_marker("disruptive") and not alone:
            pytest.skip("other clients would notice; --disruptive runs it")
        given = request.config.getoption("--model-key", None)
        admin = request.config.getoption("--model-admin-key", None)
        root = url.rstrip("/").removesuffix("/v1")
        real = await found(root, http, key=given, admin_key=admin)
        await skip_unless(real, needed)
        yield real


def fake(needed: Json) -> FakeSGLang:
    """A fake with the recorded server's options, changed as the test needs."""
    parser = needed.get("tool_call_parser", "mistral")
    return FakeSGLang(
        check_script(SCRIPT),
        Settings(
            model=RECORDED_MODEL,
            context_length=8192,
            max_total_tokens=needed.get("max_total_tokens", 200_000),
            max_running=needed.get("max_running_requests", 32),
            max_queued=needed.get("max_queued_requests", 64),
            tool_call_parser=ToolCallParser(parser or "none"),
            strict=False,
            disconnect_poll_s=0.4,
            health_timeout_s=0.2,
            health_delay_s=0.05 if needed.get("pause") else 1.0,
            api_key=keys(needed).get("key"),
            admin_api_key=keys(needed).get("admin_key"),
        ),
    )


def keys(needed: Json) -> dict[str, str]:
    """The fake's keys, where a test is about keys."""
    return {"key": "sk-test", "admin_key": "sk-admin"} if needed.get("api_key") else {}


async def found(url: str, http: aiohttp.ClientSession, **more: Any) -> Server:
    """What the server says about itself."""
    bare = Server(url, http, model="", context=0, cache_report=True, **more)
    entry = (await bare.get("/v1/models")).json["data"][0]
    info = (await bare.get("/server_info")).json
    return Server(
        url=url,
        http=http,
        model=entry["id"],
        context=entry["max_model_len"],
        cache_report=bool(info.get("enable_cache_report")),
        **more,
    )


async def skip_unless(server: Server, needed: Json) -> None:
    """Skip where a real server was started in another way, and say how it would have to be."""
    if needed.get("api_key") and server.key is None:
        pytest.skip("needs a server with --api-key, and --model-key")
    info = (await server.get("/server_info")).json
    for name, value in needed.items():
        if name not in ("api_key", "pause") and info.get(name) != value:
            option = f"with --{name.replace('_', '-')} {value}"
            if value is None:
                option = f"without --{name.replace('_', '-')}"
            pytest.skip(f"needs a server {option}; this one has {info.get(name)}")
