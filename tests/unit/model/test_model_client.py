"""The model client over real HTTP, against the fake SGLang in this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from ratchet.core.config import Config, ContextImage, Engine, ModelConfig, SandboxConfig
from ratchet.core.keys import sha256
from ratchet.core.replies import FailureKind, ModelFailure, RawCall, RawReply, Usage
from ratchet.core.transcript import request
from ratchet.edges.access import Access
from ratchet.edges.model import ModelClient
from ratchet.ports import JournalAway, Model

from tests.unit.model.asking import (
    BODY,
    Objects,
    client_of,
    failure,
    fake,
    other_server,
    reply,
    request_to,
)


@pytest.fixture
async def client() -> AsyncIterator[ModelClient]:
    async with client_of(good={"key": "sk-test"}) as client:
        yield client


async def test_a_reply_brings_text_reasoning_calls_usage_and_model(client: ModelClient) -> None:
    port: Model = client
    said = {
        "content": "I look.",
        "reasoning_content": "Hm.",
        "tool_calls": [{"name": "bash", "arguments": {"command": "ls"}}],
        "usage": {
            "prompt_tokens": 90,
            "cached_tokens": 64,
            "completion_tokens": 12,
            "reasoning_tokens": 3,
        },
    }
    body = BODY.removesuffix("}") + ',"model":"qwen"}'
    async with fake({"reply": said}) as server:
        answer = await port.ask(request_to(server.base_url, body))
    assert answer == RawReply(
        content="I look.",
        reasoning="Hm.",
        calls=(RawCall("bash", '{"command": "ls"}'),),
        finish_reason="tool_calls",
        usage=Usage(90, 64, 12, 3),
        model="qwen",
    )


@pytest.mark.parametrize("vision", [True, False])
async def test_images_are_taken_by_a_model_with_vision_and_refused_in_words_by_another(
    client: ModelClient, vision: bool
) -> None:
    asked = ModelConfig("main", "http://model/v1", "m", vision=True)
    image = ContextImage("image/png", "iVBORw0KGgo=")
    config = Config("Mend it.", asked, SandboxConfig("debian"), tools=("bash",), images=(image,))
    body = request(config, (), 1).body
    async with fake({"reply": {"content": "I see."}}, vision=vision) as server:
        answer = await client.ask(request_to(server.base_url, body))
    if vision:
        assert isinstance(answer, RawReply) and answer.content == "I see."
        return
    assert isinstance(answer, ModelFailure) and answer.kind is FailureKind.REQUEST
    assert "Model only supports text input" in answer.message


async def test_sglang_gets_rid_routing_key_and_cache_salt_beside_the_body(
    client: ModelClient,
) -> None:
    async with fake({"reply": {}}) as server:
        await reply(client, server.base_url)
        (seen,) = server.requests
    assert (seen.rid, seen.key, seen.cache_salt) == ("r-1", "task-uid", "team-a")
    assert seen.digest == f"sha256:{sha256(BODY)}"


async def test_another_engine_gets_the_body_alone(client: ModelClient) -> None:
    async with fake({"reply": {}}) as server:
        await reply(client, server.base_url, engine=Engine.OPENAI)
        (seen,) = server.requests
    assert seen.body == json.loads(BODY)
    assert seen.key == ""


async def test_the_key_of_the_secret_is_sent_and_read_once(client: ModelClient) -> None:
    secrets = Objects(good={"key": " sk-test\n"})
    async with (
        ModelClient(Access(secrets)) as keyed,
        fake({"reply": {}}, api_key="sk-test") as server,
    ):
        for rid in ("r-1", "r-2"):
            request = request_to(server.base_url, rid=rid, secret_name="good", secret_key="key")
            assert isinstance(await keyed.ask(request), RawReply)
    assert secrets.reads == [("Secret", "team-a", "good")]


async def test_a_wrong_key_is_a_configuration_failure_and_read_again_next_time() -> None:
    secrets = Objects(main={"key": "a-wrong-one"})
    async with ModelClient(Access(secrets)) as client, fake({"reply": {}}, api_key="k") as server:
        config = {"secret_name": "main", "secret_key": "key"}
        failed = await failure(client, server.base_url, **config)
        secrets.objects["main"] = {"key": "k"}
        await reply(client, server.base_url, **config)
    assert (failed.kind, failed.status) == (FailureKind.CONFIGURATION, 401)
    assert "Unauthorized" in failed.message and "a-wrong-one" not in failed.message
    assert "Correct the ModelEndpoint, its Secret or its CA." in failed.message


@pytest.mark.parametrize("key", ["", "two\nlines", "ümlaut"])
async def test_a_key_that_cannot_be_sent_is_a_configuration_failure(key: str) -> None:
    async with client_of(main={"key": key}) as client, fake({"reply": {}}) as server:
        failed = await failure(client, server.base_url, secret_name="main", secret_key="key")
        assert server.requests == []
    assert failed.kind is FailureKind.CONFIGURATION
    assert "Secret team-a/main" in failed.message


async def test_a_missing_secret_is_a_configuration_failure(client: ModelClient) -> None:
    failed = await client.ask(request_to("http://127.0.0.1:9/v1", secret_name="none"))
    assert isinstance(failed, ModelFailure)
    assert failed.kind is FailureKind.CONFIGURATION
    assert "there is no Secret team-a/none: create it" in failed.message


async def test_a_secret_that_cannot_be_read_now_is_tried_again() -> None:
    class Away(Objects):
        async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
            raise JournalAway("the API server does not answer")

    async with ModelClient(Access(Away())) as client:
        failed = await client.ask(request_to("http://127.0.0.1:9/v1", secret_name="any"))
    assert isinstance(failed, ModelFailure)
    assert failed.kind is FailureKind.RETRY


@pytest.mark.parametrize(
    ("kind", "meaning", "status"),
    [
        ("queue_full", FailureKind.WAIT, 503),
        ("waiting_timeout", FailureKind.WAIT, 503),
        ("preempted", FailureKind.WAIT, 503),
        ("running_timeout", FailureKind.RETRY, 503),
        ("rate_limited", FailureKind.WAIT, 429),
        ("internal", FailureKind.RETRY, 500),
        ("bad_json", FailureKind.RETRY, None),
        ("cut", FailureKind.RETRY, None),
        ("disconnect", FailureKind.RETRY, None),
        ("abort", FailureKind.RETRY, 200),
        ("context_too_long", FailureKind.CONTEXT, 400),
        ("unauthorized", FailureKind.CONFIGURATION, 401),
    ],
)
async def test_each_fault_is_classed_by_who_must_act(
    client: ModelClient, kind: str, meaning: FailureKind, status: int | None
) -> None:
    async with fake({"error": {"kind": kind}}) as server:
        failed = await failure(client, server.base_url)
        assert len(server.requests) == 1, "the client never retries by itself"
    assert (failed.kind, failed.status) == (meaning, status)
    assert failed.message.startswith(f'The model endpoint "main" ({server.base_url}) ')
    assert failed.message.endswith(".")


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (400, {"error": {"message": "bad", "code": "context_length_exceeded"}}, "Context"),
        (400, {"message": "Requested token count exceeds the model's maximum context length."}, "Context"),
        (400, {"message": "Input length (2 tokens) exceeds the maximum allowed length (1)."}, "Context"),
        (413, "Payload Too Large", "Context"),
        (400, {"message": "Duplicate request ID detected: r-1"}, "Retry"),
        (400, {"message": "temperature must be a number"}, "Request"),
        (422, {"detail": "no"}, "Request"),
        (302, "", "Configuration"),
        (403, {"detail": "no"}, "Configuration"),
        (404, {"detail": "Not Found"}, "Configuration"),
        (408, "", "Retry"),
        (502, "<html>Bad Gateway</html>", "Retry"),
        (504, "", "Retry"),
    ],
)  # fmt: skip
async def test_each_status_is_classed_by_who_must_act(
    client: ModelClient, status: int, body: object, meaning: str
) -> None:
    async with other_server(body, status) as server:
        failed = await failure(client, server.base_url)
    assert (failed.kind, failed.status) == (FailureKind(meaning), status)


async def test_the_words_of_the_server_are_passed_on_in_one_short_line(
    client: ModelClient,
) -> None:
    async with other_server({"detail": "a\nb" + "x" * 2000}, 500) as server:
        failed = await failure(client, server.base_url)
    assert "answered 500: a bxx" in failed.message
    assert "\n" not in failed.message and len(failed.message) < 800


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("Thu, 01 Jan 2009 00:00:00 GMT", 0.0), ("soon", None)],
)
async def test_retry_after_is_read_as_seconds(
    client: ModelClient, header: str, seconds: float | None
) -> None:
    async with other_server("", 503, **{"Retry-After": header}) as server:
        failed = await failure(client, server.base_url)
    assert (failed.kind, failed.retry_after_s) == (FailureKind.WAIT, seconds)


async def test_a_refused_connection_is_tried_again(client: ModelClient) -> None:
    async with fake({"reply": {}}) as server:
        url = server.base_url
    failed = await client.ask(request_to(url))
    assert isinstance(failed, ModelFailure)
    assert failed.kind is FailureKind.RETRY
    assert "did not answer" in failed.message and "can reach it" in failed.message


async def test_a_server_that_does_not_answer_in_time_is_aborted_and_tried_again(
    client: ModelClient,
) -> None:
    async with fake({"error": {"kind": "hang"}}) as server:
        failed = await failure(client, server.base_url, total_timeout_s=0.1)
        await server.wait_until(lambda seen: seen[0].left is not None, 2)
        assert server.requests[0].outcome == "aborted"
    assert failed.kind is FailureKind.RETRY
    assert "within 0.1 s" in failed.message


async def test_cancelling_frees_the_engine_long_before_it_would_look_for_the_client(
    client: ModelClient,
) -> None:
    async with fake({"reply": {}, "delay_s": 60}, disconnect_poll_s=4.0) as server:
        asking = asyncio.create_task(client.ask(request_to(server.base_url)))
        await server.wait_until(lambda _: server.in_flight == 1)
        begun = time.monotonic()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        held_up = time.monotonic() - begun
        await server.wait_until(lambda seen: seen[0].left is not None, 2)
        assert server.requests[0].outcome == "aborted"
        assert time.monotonic() - begun < 1.0
    assert held_up < 0.1, "the abort must not hold up the cancel"


async def test_cancelling_a_request_to_another_engine_closes_the_connection(
    client: ModelClient,
) -> None:
    async with fake({"reply": {}, "delay_s": 60}, disconnect_poll_s=0.05) as server:
        request = request_to(server.base_url, engine=Engine.OPENAI)
        asking = asyncio.create_task(client.ask(request))
        await server.wait_until(lambda _: server.in_flight == 1)
        asking.cancel()
        await server.wait_until(lambda seen: seen[0].left is not None, 2)
        assert server.requests[0].outcome == "disconnected"


async def test_an_answer_over_the_bound_is_not_kept_in_memory(
    client: ModelClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet.edges.model.MAX_ANSWER_BYTES", 1000)
    async with fake({"reply": {"content": "x" * 2000}}) as server:
        failed = await failure(client, server.base_url)
    assert failed.kind is FailureKind.RETRY
    assert "longer than 1000 bytes" in failed.message


async def test_text_that_is_not_clean_utf8_is_made_so(client: ModelClient) -> None:
    said = {"content": "a\ud800b 😀", "tool_calls": [{"name": "bash", "arguments": "\udfff"}]}
    async with fake({"reply": said}) as server:
        answer = await reply(client, server.base_url)
    assert (answer.content, answer.calls) == ("a?b 😀", (RawCall("bash", "?"),))


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({"content": None}, RawReply()),
        ({}, RawReply()),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, RawReply("ab")),
        ({"content": "", "reasoning": "why"}, RawReply(reasoning="why")),
        ({"tool_calls": None}, RawReply()),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": "é"}}}]},
         RawReply(calls=(RawCall("f", '{"a": "é"}'),))),
        ({"tool_calls": [{"function": {"name": "f"}}]}, RawReply(calls=(RawCall("f", "{}"),))),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{cut"}}]},
         RawReply(calls=(RawCall("f", "{cut"),))),
        ({"tool_calls": ["odd"]}, RawReply(calls=(RawCall("", '"odd"'),))),
    ],
)  # fmt: skip
async def test_messages_of_other_servers_are_understood(
    client: ModelClient, message: dict[str, Any], wanted: RawReply
) -> None:
    async with other_server({"choices": [{"message": message}]}) as server:
        assert await reply(client, server.base_url, engine=Engine.OPENAI) == wanted


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (None, Usage()),
        ({"prompt_tokens": 5, "completion_tokens": 2}, Usage(5, 0, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(5, 0, 2)),
        ({"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}, Usage(0, 0, 9, 4)),
        ({"prompt_tokens": "many", "completion_tokens": -1}, Usage()),
    ],
)  # fmt: skip
async def test_usage_may_lack_its_details(
    client: ModelClient, usage: object, wanted: Usage
) -> None:
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    async with other_server(body) as server:
        assert (await reply(client, server.base_url)).usage == wanted


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "upstream is full", "code": 429}}, FailureKind.WAIT),
        ({"error": {"message": "upstream broke"}}, FailureKind.RETRY),
        ({"choices": []}, FailureKind.RETRY),
        ({"choices": [{"message": "text"}]}, FailureKind.RETRY),
        ({"choices": {"0": {}}}, FailureKind.RETRY),
        ("[1]", FailureKind.RETRY),
        ("<html>", FailureKind.RETRY),
    ],
)
async def test_a_200_without_a_reply_is_a_failure(
    client: ModelClient, body: object, kind: FailureKind
) -> None:
    async with other_server(body) as server:
        assert (await failure(client, server.base_url)).kind is kind


async def test_one_connection_serves_many_turns(client: ModelClient) -> None:
    async with fake({"reply": {}}) as server:
        for number in range(5):
            request = request_to(server.base_url, rid=f"r-{number}")
            assert isinstance(await client.ask(request), RawReply)
        connections = server.connections
    assert connections == 1


async def test_many_tasks_share_the_client_and_none_waits_for_another(
    client: ModelClient,
) -> None:
    async with fake({"reply": {}, "delay_s": 0.1}) as server:
        requests = [request_to(server.base_url, rid=f"r-{n}") for n in range(150)]
        begun = time.monotonic()
        answers = await asyncio.gather(*(client.ask(request) for request in requests))
        took = time.monotonic() - begun
    assert all(isinstance(answer, RawReply) for answer in answers)
    assert took < 5.0
