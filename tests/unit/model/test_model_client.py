"""The model client over real HTTP, against the fake SGLang in this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ratchet.core.config import Engine, ModelConfig
from ratchet.core.keys import canonical, sha256
from ratchet.core.replies import FailureKind, ModelFailure, RawCall, RawReply, Usage
from ratchet.edges.model import ModelClient
from ratchet.ports import JournalAway, Model, ModelRequest
from sglang_fake import FakeSGLang, Settings, check_script

TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
BODY = canonical({"messages": [{"role": "user", "content": "Mend it."}], "tools": TOOLS})


class Secrets:
    """Keys by (namespace, Secret, key); counts the reads."""

    def __init__(self, **keys: str) -> None:
        self.keys = keys
        self.reads = 0

    async def read(self, namespace: str, secret: str, key: str) -> str:
        self.reads += 1
        if secret not in self.keys:
            raise LookupError(f"Secret {namespace}/{secret} does not exist")
        return self.keys[secret]


@pytest.fixture
async def client() -> AsyncIterator[ModelClient]:
    async with ModelClient(Secrets(good="sk-test").read) as client:
        yield client


def fake(turn: dict[str, Any], **changes: Any) -> FakeSGLang:
    script = check_script({"conversations": [{"turns": [turn], "loop": True}]})
    return FakeSGLang(script, Settings(keep_bodies=True, **changes))


def other_server(body: object, status: int = 200, **headers: str) -> FakeSGLang:
    """A server that answers with exactly this body."""
    return fake({"error": {"status": status, "body": body, "headers": headers}})


def request_to(url: str, body: str = BODY, rid: str = "r-1", **config: Any) -> ModelRequest:
    known = {"endpoint": "main", "url": url, "model": "m", "engine": Engine.SGLANG}
    return ModelRequest(
        config=ModelConfig(**{**known, **config}),
        namespace="team-a",
        body=body,
        rid=rid,
        routing_key="task-uid",
    )


async def reply(client: ModelClient, server: FakeSGLang, **config: Any) -> RawReply:
    answer = await client.ask(request_to(server.base_url, **config))
    assert isinstance(answer, RawReply), answer
    return answer


async def failure(client: ModelClient, server: FakeSGLang, **config: Any) -> ModelFailure:
    answer = await client.ask(request_to(server.base_url, **config))
    assert isinstance(answer, ModelFailure), answer
    return answer


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


async def test_sglang_gets_rid_routing_key_and_cache_salt_beside_the_body(
    client: ModelClient,
) -> None:
    async with fake({"reply": {}}) as server:
        await reply(client, server)
        (seen,) = server.requests
    assert (seen.rid, seen.key, seen.cache_salt) == ("r-1", "task-uid", "team-a")
    assert seen.digest == f"sha256:{sha256(BODY)}"


async def test_another_engine_gets_the_body_alone(client: ModelClient) -> None:
    async with fake({"reply": {}}) as server:
        await reply(client, server, engine=Engine.OPENAI)
        (seen,) = server.requests
    assert seen.body == json.loads(BODY)
    assert seen.key == ""


async def test_the_key_of_the_secret_is_sent_and_read_once(client: ModelClient) -> None:
    secrets = Secrets(good=" sk-test\n")
    async with ModelClient(secrets.read) as keyed, fake({"reply": {}}, api_key="sk-test") as server:
        for rid in ("r-1", "r-2"):
            request = request_to(server.base_url, rid=rid, secret_name="good", secret_key="key")
            assert isinstance(await keyed.ask(request), RawReply)
    assert secrets.reads == 1


async def test_a_wrong_key_is_a_configuration_failure_and_read_again_next_time() -> None:
    secrets = Secrets(main="wrong")
    async with ModelClient(secrets.read) as client, fake({"reply": {}}, api_key="k") as server:
        config = {"secret_name": "main", "secret_key": "key"}
        failed = await failure(client, server, **config)
        secrets.keys["main"] = "k"
        await reply(client, server, **config)
    assert (failed.kind, failed.status) == (FailureKind.CONFIGURATION, 401)
    assert "Unauthorized" in failed.message and "wrong" not in failed.message
    assert "Correct the ModelEndpoint or its Secret." in failed.message


@pytest.mark.parametrize("key", ["", "two\nlines", "ümlaut"])
async def test_a_key_that_cannot_be_sent_is_a_configuration_failure(key: str) -> None:
    async with ModelClient(Secrets(main=key).read) as client, fake({"reply": {}}) as server:
        failed = await failure(client, server, secret_name="main", secret_key="key")
        assert server.requests == []
    assert failed.kind is FailureKind.CONFIGURATION
    assert "Secret team-a/main" in failed.message


async def test_a_missing_secret_is_a_configuration_failure(client: ModelClient) -> None:
    failed = await client.ask(request_to("http://127.0.0.1:9/v1", secret_name="none"))
    assert isinstance(failed, ModelFailure)
    assert failed.kind is FailureKind.CONFIGURATION
    assert "Secret team-a/none does not exist" in failed.message


async def test_a_secret_that_cannot_be_read_now_is_tried_again() -> None:
    async def away(namespace: str, secret: str, key: str) -> str:
        raise JournalAway("the API server does not answer")

    async with ModelClient(away) as client:
        failed = await client.ask(request_to("http://127.0.0.1:9/v1", secret_name="any"))
    assert isinstance(failed, ModelFailure)
    assert failed.kind is FailureKind.RETRY


@pytest.mark.parametrize(
    ("kind", "meaning", "status"),
    [
        ("queue_full", FailureKind.WAIT, 503),
        ("running_timeout", FailureKind.WAIT, 503),
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
        failed = await failure(client, server)
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
        failed = await failure(client, server)
    assert (failed.kind, failed.status) == (FailureKind(meaning), status)


async def test_the_words_of_the_server_are_passed_on_in_one_short_line(
    client: ModelClient,
) -> None:
    async with other_server({"detail": "a\nb" + "x" * 2000}, 500) as server:
        failed = await failure(client, server)
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
        failed = await failure(client, server)
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
        failed = await failure(client, server, total_timeout_s=0.1)
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


async def test_an_abort_that_fails_does_not_disturb_the_cancel() -> None:
    """With an admin key the engine refuses the abort; the closed connection has to do."""
    secrets = Secrets(main="k")
    options: dict[str, Any] = {"api_key": "k", "admin_api_key": "a", "disconnect_poll_s": 0.3}
    async with fake({"reply": {}, "delay_s": 60}, **options) as server:
        async with ModelClient(secrets.read) as client:
            request = request_to(server.base_url, secret_name="main", secret_key="key")
            asking = asyncio.create_task(client.ask(request))
            await server.wait_until(lambda _: server.in_flight == 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await server.wait_until(lambda seen: seen[0].left is not None, 2)
        assert server.requests[0].outcome == "disconnected"


async def test_an_answer_over_the_bound_is_not_kept_in_memory(
    client: ModelClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet.edges.model.MAX_ANSWER_BYTES", 1000)
    async with fake({"reply": {"content": "x" * 2000}}) as server:
        failed = await failure(client, server)
    assert failed.kind is FailureKind.RETRY
    assert "longer than 1000 bytes" in failed.message


async def test_text_that_is_not_clean_utf8_is_made_so(client: ModelClient) -> None:
    said = {"content": "a\ud800b 😀", "tool_calls": [{"name": "bash", "arguments": "\udfff"}]}
    async with fake({"reply": said}) as server:
        answer = await reply(client, server)
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
        assert await reply(client, server, engine=Engine.OPENAI) == wanted


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
        assert (await reply(client, server)).usage == wanted


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
        assert (await failure(client, server)).kind is kind


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
