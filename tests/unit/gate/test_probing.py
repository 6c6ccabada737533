"""Looks at an endpoint: against the fake SGLang, and against answers of other servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from ratchet.core.admission import Load
from ratchet.core.conditions import EndpointReason
from ratchet.core.config import Engine, ModelConfig
from ratchet.edges.access import Access, Reach
from ratchet.edges.probing import HttpProber, read_load, read_models
from ratchet.ports import PortError
from sglang_fake.script import parse_script
from sglang_fake.server import FakeSGLang
from sglang_fake.settings import Settings

MODEL = "served-model"
NOTHING = parse_script("conversations: [{turns: [{reply: {content: Nothing.}}]}]")
RECORDED = Path(__file__).parents[2] / "fixtures" / "sglang"


class Reader:
    """Secrets and ConfigMaps of a test; `away`: the API server does not answer."""

    def __init__(self, secret: Mapping[str, str] | None = None, *, away: bool = False) -> None:
        self._secret, self._away = secret, away

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        if self._away:
            raise PortError("the API server is away")
        if self._secret is None:
            raise LookupError(f"there is no Secret {namespace}/{name}: create it")
        return self._secret

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        return {"ca.crt": "no certificate"}


def config(url: str, engine: Engine = Engine.SGLANG, **more: Any) -> ModelConfig:
    return ModelConfig("large", url, MODEL, engine, connect_timeout_s=2.0, **more)


@asynccontextmanager
async def prober(reader: Reader | None = None) -> AsyncIterator[HttpProber]:
    async with HttpProber(Access(reader or Reader())) as made:
        yield made


@asynccontextmanager
async def answering(status: int, body: Any) -> AsyncIterator[str]:
    """The base URL of a server that gives every request this answer."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def fake(**settings: Any) -> FakeSGLang:
    return FakeSGLang(NOTHING, Settings(model=MODEL, **settings))


async def test_a_server_that_lists_the_model_is_ready() -> None:
    async with fake() as server, prober() as look:
        verdict = (await look.models(config(server.base_url), "models")).verdict
    assert verdict is not None and (verdict.ready, verdict.reason) == (True, EndpointReason.SERVING)


async def test_a_model_that_is_not_listed_is_named_although_sglang_would_serve_it() -> None:
    async with FakeSGLang(NOTHING, Settings(model="other")) as server, prober() as look:
        verdict = (await look.models(config(server.base_url), "models")).verdict
    assert verdict is not None and verdict.reason is EndpointReason.MODEL_NOT_SERVED
    assert "does not list 'served-model', but other: correct spec.model" in verdict.message
    assert "SGLang answers requests for a name that it does not know" in verdict.message


async def test_a_wrong_key_is_named_and_the_right_one_is_sent() -> None:
    keyed = config("", secret_name="key", secret_key="key")
    async with fake(api_key="right-key") as server:
        there = replace(keyed, url=server.base_url)
        async with prober(Reader({"key": "wrong-key"})) as look:
            wrong = (await look.models(there, "models")).verdict
        async with prober(Reader({"key": "right-key"})) as look:
            right = (await look.models(there, "models")).verdict
    assert wrong is not None and wrong.reason is EndpointReason.UNAUTHORIZED
    assert right is not None and right.ready


async def test_a_missing_secret_and_a_wrong_ca_are_named() -> None:
    async with prober() as look:
        keyed = config("http://127.0.0.1:1/v1", secret_name="key", secret_key="key")
        missing = (await look.models(keyed, "models")).verdict
        trusting = config("https://127.0.0.1:1/v1", ca_config_map="ca")
        invalid = (await look.models(trusting, "models")).verdict
    assert missing is not None and missing.reason is EndpointReason.SECRET_NOT_FOUND
    assert missing.message == "there is no Secret models/key: create it."
    assert invalid is not None and invalid.reason is EndpointReason.CA_INVALID


async def test_an_api_server_that_is_away_says_nothing_of_the_endpoint() -> None:
    async with prober(Reader(away=True)) as look:
        keyed = config("http://127.0.0.1:1/v1", secret_name="key", secret_key="key")
        assert (await look.models(keyed, "models")).verdict is None
        assert await look.load(keyed, "models") is None


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with prober() as look:
        verdict = (await look.models(config("http://127.0.0.1:1/v1"), "models")).verdict
        assert await look.load(config("http://127.0.0.1:1/v1"), "models") is None
    assert verdict is not None and verdict.reason is EndpointReason.UNREACHABLE
    assert "http://127.0.0.1:1/v1/models" in verdict.message


async def test_another_key_is_noticed() -> None:
    keyed = config("http://127.0.0.1:1/v1", secret_name="key", secret_key="key")
    seen = []
    for key in ("one-key", "one-key", "two-key"):
        async with prober(Reader({"key": key})) as look:
            seen.append((await look.models(keyed, "models")).access)
    assert seen[0] == seen[1] != seen[2]


async def test_the_load_of_the_fake_is_read() -> None:
    async with fake() as server, prober() as look:
        load = await look.load(config(server.base_url), "models")
    assert load is not None and (load.running, load.waiting) == (0, 0) and load.total_tokens > 0


async def test_a_server_without_a_page_of_its_load_does_not_say() -> None:
    async with answering(404, {}) as url, prober() as look:
        assert await look.load(config(url), "models") is None


@pytest.mark.parametrize(
    ("status", "engine", "ready", "reason"),
    [
        (404, Engine.OPENAI, None, EndpointReason.NOT_ASKED),
        (404, Engine.SGLANG, False, EndpointReason.UNREACHABLE),
        (403, Engine.OPENAI, False, EndpointReason.UNAUTHORIZED),
        (429, Engine.OPENAI, True, EndpointReason.SERVING),
        (503, Engine.SGLANG, False, EndpointReason.UNREACHABLE),
        (200, Engine.OPENAI, False, EndpointReason.UNREACHABLE),
    ],
)
async def test_what_other_answers_mean(
    status: int, engine: Engine, ready: bool | None, reason: EndpointReason
) -> None:
    async with answering(status, {"detail": "no"}) as url, prober() as look:
        verdict = (await look.models(config(url, engine), "models")).verdict
    assert verdict is not None and (verdict.ready, verdict.reason) == (ready, reason)


def test_a_key_that_the_server_repeats_is_not_shown() -> None:
    verdict = read_models(500, b"bad key secret-key", config("http://m/v1"), Reach("secret-key"))
    assert "secret-key" not in verdict.message and "***" in verdict.message


def test_the_load_is_summed_over_ranks() -> None:
    rank = {
        "num_running_reqs": 32, "num_waiting_reqs": 16, "num_used_tokens": 379,
        "max_total_num_tokens": 200_000, "max_running_requests": 32,
    }  # fmt: skip
    raw = json.dumps({"loads": [rank, rank]}).encode()
    assert read_load(raw) == Load(64, 32, 758, 400_000, 64)


def test_the_recorded_load_is_read() -> None:
    recorded = json.loads((RECORDED / "load" / "v1_loads_busy.json").read_text())
    raw = json.dumps(recorded["response"]["body"]).encode()
    assert read_load(raw) == Load(32, 16, 379, 200_000, 32)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"loads": []}', b'{"loads": 3}', b'["loads"]'])
def test_a_load_that_cannot_be_read_is_none(raw: bytes) -> None:
    assert read_load(raw) is None
