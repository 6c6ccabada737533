"""The fake SGLang answers as the recorded one did: status, headers, shape of the body, and every
value that does not differ from run to run."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from sglang_fake import Settings, ToolCallParser

from tests.contract.wire import FIXTURES, Json, fake_that_says, get, recording, send


def names(*folders: str) -> list[str]:
    found = (path for folder in folders for path in sorted((FIXTURES / folder).glob("*.json")))
    return [str(path.relative_to(FIXTURES).with_suffix("")) for path in found]


def is_chat(name: str) -> bool:
    request = recording(name).get("request", {})
    return request.get("path") == "/v1/chat/completions" and not request["body"].get("stream")


FOLDERS = ["chat", "tools", "no_parser", "kv_pool", "forward_unknown_tools"]
FOLDERS += ["tools_forced_hermes", "tools_forced_mistral"]
ASKED = [name for name in names(*FOLDERS) if is_chat(name)] + names("errors")
CHAT = [name for name in ASKED if recording(name)["response"]["status"] == 200]
ERRORS = [name for name in ASKED if name not in CHAT] + ["auth/chat_no_key", "auth/chat_wrong_key"]
PLAIN_GETS = [
    *("v1_models", "v1_models_one", "v1_models_unknown", "ready", "ping", "unknown_path"),
    *("chat_get", "v1_loads_idle", "v1_loads_core_idle", "v1_loads_bad_rank"),
]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def scripted(response: Json) -> Json:
    """The script's reply that should lead to a recorded answer. Where the recorded request forces
    the model's text by `regex`, the fake obeys that, as SGLang does."""
    choice, usage = response["body"]["choices"][0], response["body"]["usage"]
    message = choice["message"]
    calls = [call["function"] for call in message.get("tool_calls", ())]
    reply: Json = {"content": message["content"], "tool_calls": calls, "usage": counts(usage)}
    if choice["finish_reason"] == "length":
        reply["finish_reason"] = "length"
    return reply


def server_of(name: str) -> Json:
    """The settings of the server that a recording is of, as far as the fake knows them."""
    server = recording(name)["server"]
    parsers = {"mistral": "mistral", "forward": "mistral", "noparser": "none"}
    return {
        "tool_call_parser": ToolCallParser(parsers.get(server, "qwen")),
        "cache_report": server not in ("forward", "noparser"),
        "forward_unknown_tools": server == "forward",
    }


def counts(usage: Json) -> Json:
    details = usage["prompt_tokens_details"] or {"cached_tokens": 0}
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "cached_tokens": details["cached_tokens"],
    }


def shape(value: Any) -> Any:
    """Field names and types. An empty list says nothing about its items."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


def without_ids(body: Json) -> Json:
    """A completion without what differs from run to run."""
    copy: Json = json.loads(json.dumps(body))
    del copy["created"]
    for choice in copy["choices"]:
        for call in choice["message"].get("tool_calls", ()):
            call["id"] = re.sub("[0-9a-f]{24}", "hex", call["id"])
    return copy


def assert_same_headers(answer: Json, recorded: Json) -> None:
    """Every recorded header is there, the ones of interest with the same value."""
    given = {name.lower(): value for name, value in answer["headers"].items()}
    wanted = {k: v for k, v in recorded["headers"].items() if k not in ("server", "vary")}
    wanted.pop("transfer-encoding", None)  # the fake knows the length of all that it sends
    assert wanted.keys() <= given.keys()
    assert ("content-type" in given) == ("content-type" in wanted)
    for name in ("content-type", "allow"):
        assert given.get(name) == wanted.get(name)


@pytest.mark.parametrize("name", CHAT)
async def test_a_recorded_chat_is_answered_alike(name: str, http: aiohttp.ClientSession) -> None:
    found = recording(name)
    request, recorded = found["request"], found["response"]
    forced = "regex" in request["body"]
    reply = {"content": "not said"} if forced else scripted(recorded)
    async with fake_that_says(reply, **server_of(name)) as fake:
        answer = await send(http, fake, request)

    assert answer["status"] == 200
    assert_same_headers(answer, recorded)
    assert shape(answer["body"]) == shape(recorded["body"])
    ours, theirs = without_ids(answer["body"]), without_ids(recorded["body"])
    if "rid" not in request["body"]:
        assert re.fullmatch("[0-9a-f]{32}", ours.pop("id")) and theirs.pop("id")
    if forced:
        # How many tokens a forced text has, and so where it is cut, only a tokenizer knows.
        for body in (ours, theirs):
            del body["usage"], body["metadata"]
        if name == "tools_forced_mistral/compact_two_cut":
            for body in (ours, theirs):
                content = body["choices"][0]["message"].pop("content")
                assert content and "[TOOL_CALLS]get_weather[ARGS]".startswith(content)
    assert ours == theirs


@pytest.mark.parametrize("name", ERRORS)
async def test_a_recorded_error_is_answered_alike(name: str, http: aiohttp.ClientSession) -> None:
    found = recording(name)
    request, recorded = found["request"], found["response"]
    changes: Json = {}
    if name == "kv_pool/prompt_over_pool":
        changes = {"max_total_tokens": 1500}
    if name.startswith("auth/"):
        changes = {"api_key": "sk-test", "admin_api_key": "sk-admin"}
    async with fake_that_says({"content": "not reached"}, **changes) as fake:
        answer = await send(http, fake, request)

    assert answer["status"] == recorded["status"]
    assert_same_headers(answer, recorded)
    if "body" not in recorded:
        assert answer["body_text"] == recorded["body_text"]
        return
    assert shape(answer["body"]) == shape(recorded["body"])
    # The fake has no tokenizer, so token counts differ; the words of a schema error of an unknown
    # role name SGLang's own classes, and the JSON parser's words are another parser's.
    if name not in ("errors/bad_role", "errors/malformed_json"):
        assert no_numbers(answer["body"]) == no_numbers(recorded["body"])


def no_numbers(body: Json) -> Json:
    if "message" not in body:
        return body
    return {**body, "message": re.sub(r"\b\d+ tokens|total of \d+", "N", body["message"])}


@pytest.mark.parametrize("name", PLAIN_GETS)
async def test_a_recorded_get_is_answered_alike(name: str, http: aiohttp.ClientSession) -> None:
    found = recording(f"endpoints/{name}")
    recorded = found["response"]
    async with fake_that_says({}) as fake:
        answer = await send(http, fake, found["request"])

    assert answer["status"] == recorded["status"]
    assert_same_headers(answer, recorded)
    assert answer.get("body_text") == recorded.get("body_text")
    assert shape(answer.get("body")) == shape(recorded.get("body"))


async def test_health_takes_a_second_and_has_no_body(http: aiohttp.ClientSession) -> None:
    found = recording("endpoints/health_idle")
    async with fake_that_says({}) as fake:
        begun = time.monotonic()
        answer = await send(http, fake, found["request"])
        took = time.monotonic() - begun

    assert (answer["status"], answer["body_text"]) == (200, "")
    assert_same_headers(answer, found["response"])
    assert took == pytest.approx(found["timing"]["total_s"], abs=0.3)


async def test_every_metric_of_the_fake_is_one_of_sglang_with_the_same_type_and_labels(
    http: aiohttp.ClientSession,
) -> None:
    theirs = families(recording("cancel/metrics_after_aborts")["response"]["body_text"])
    async with fake_that_says({"content": "x"}, {"error": {"kind": "abort", "times": 1}}) as fake:
        for _ in range(2):  # one aborted, one answered, so that all counters are there
            await send(http, fake, recording("chat/plain")["request"])
        ours = families((await send(http, fake, get("/metrics")))["body_text"])

    assert "sglang:num_aborted_requests_total" in ours
    assert {name: theirs.get(name) for name in ours} == ours


def families(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and label names by metric."""
    types = dict(re.findall(r"# TYPE (\S+) (\S+)", text))
    samples = re.findall(r"^([\w:]+)\{(.*)\} ", text, re.M)
    labels = {name: tuple(re.findall(r'(\w+)="', found)) for name, found in samples}
    return {name: (types[name], labels[name]) for name in labels if name in types}


async def test_a_full_queue_is_a_503_and_shows_in_the_load(http: aiohttp.ClientSession) -> None:
    full, load = recording("queue/full_nonstream_3"), recording("queue/v1_loads_nonstream")
    asks = [{**full["request"], "body": {**full["request"]["body"], "rid": f"q-{i}"}} for i in "ab"]
    async with fake_that_says({}, {"delay_s": 60}, max_running=1, max_queued=1) as fake:
        first = asyncio.create_task(send(http, fake, asks[0]))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        second = asyncio.create_task(send(http, fake, asks[1]))
        await fake.wait_until(lambda _: fake.in_flight == 2)
        refused = await send(http, fake, full["request"])
        shown = (await send(http, fake, load["request"]))["body"]["loads"][0]
        aborted = recording("cancel/abort_all")["exchanges"][1]
        assert (await send(http, fake, aborted["request"]))["status"] == 200
        answers = [await first, await second]

    assert (refused["status"], refused["body"]) == (503, full["response"]["body"])
    recorded = load["response"]["body"]["loads"][0]
    for name in ("num_running_reqs", "num_waiting_reqs", "queues", "utilization"):
        assert shown[name] == recorded[name]
    assert [a["body"]["choices"][0]["finish_reason"] for a in answers] == ["abort", "abort"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("queue_full", "queue/full_nonstream_3"),
        ("running_timeout", "timeouts/running_nonstream"),
        ("waiting_timeout", "timeouts/waiting_nonstream"),
        ("preempted", "priority/req_b"),
        ("unauthorized", "auth/chat_wrong_key"),
        ("internal", "errors/not_an_object"),
        ("context_too_long", "errors/context_too_long"),
    ],
)
async def test_a_scripted_fault_is_answered_as_recorded(
    kind: str, name: str, http: aiohttp.ClientSession
) -> None:
    recorded = recording(name)["response"]
    async with fake_that_says({}, {"error": {"kind": kind}}) as fake:
        answer = await send(http, fake, recording("chat/plain")["request"])

    assert answer["status"] == recorded["status"]
    assert_same_headers(answer, recorded)
    if "body" in recorded:
        assert no_numbers(answer["body"]) == no_numbers(recorded["body"])
    else:
        assert answer["body_text"] == recorded["body_text"]


async def test_an_aborted_running_request_ends_with_200_and_the_text_so_far(
    http: aiohttp.ClientSession,
) -> None:
    request, abort = recording("cancel/abort_nonstream")["exchanges"]
    async with fake_that_says({"content": "never said"}, {"delay_s": 60}) as fake:
        running = asyncio.create_task(send(http, fake, request["request"]))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        answer = await send(http, fake, abort["request"])
        aborted = await running

    assert (answer["status"], answer["body_text"]) == (200, "")
    assert_same_headers(answer, abort["response"])
    assert aborted["status"] == 200
    assert shape(aborted["body"]) == shape(request["response"]["body"])
    assert aborted["body"]["choices"][0]["finish_reason"] == "abort"
    assert fake.requests[0].outcome == "aborted"


async def test_an_aborted_waiting_request_has_no_text_and_no_usage(
    http: aiohttp.ClientSession,
) -> None:
    request, abort = recording("cancel/abort_waiting")["exchanges"]
    other = recording("chat/plain")["request"]
    async with fake_that_says({"content": "x"}, {"delay_s": 60}, max_running=1) as fake:
        first = asyncio.create_task(send(http, fake, other))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        waiting = asyncio.create_task(send(http, fake, request["request"]))
        await fake.wait_until(lambda _: fake.in_flight == 2)
        await send(http, fake, abort["request"])
        aborted = await waiting
        assert not first.done()
        await send(http, fake, recording("cancel/abort_all")["exchanges"][1]["request"])
        await first

    assert without_ids(aborted["body"]) == without_ids(request["response"]["body"])


async def test_an_unknown_rid_or_a_prefix_of_one_aborts_nothing(
    http: aiohttp.ClientSession,
) -> None:
    unknown = recording("cancel/abort_unknown_rid")
    request, _ = recording("cancel/abort_nonstream")["exchanges"]
    prefix = {**unknown["request"], "body": {"rid": request["request"]["body"]["rid"][:-1]}}
    async with fake_that_says({}, {"delay_s": 60}) as fake:
        running = asyncio.create_task(send(http, fake, request["request"]))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        for abort in (unknown["request"], prefix):
            answer = await send(http, fake, abort)
            assert (answer["status"], answer["body_text"]) == (200, "")
        assert fake.in_flight == 1
        running.cancel()


async def test_a_rid_in_use_is_refused_and_free_again_afterwards(
    http: aiohttp.ClientSession,
) -> None:
    first, second = recording("cancel/duplicate_rid")["exchanges"]
    async with fake_that_says({}, {"delay_s": 0.5}) as fake:
        running = asyncio.create_task(send(http, fake, first["request"]))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        refused = await send(http, fake, second["request"])
        await running
        again = await send(http, fake, second["request"])

    assert (refused["status"], refused["body"]) == (400, second["response"]["body"])
    assert again["status"] == 200


async def test_a_lost_client_is_noticed_only_at_a_multiple_of_the_poll_from_the_start(
    http: aiohttp.ClientSession,
) -> None:
    # Recorded with 4 s: closed 1.5 s after its start, a request was gone at 4.0 s.
    recorded = recording("cancel/client_disconnect")["measured"]["nonstream_closed"][0]
    assert recorded["closed_after_s"] + recorded["gone_after_s"] == pytest.approx(4.0, abs=0.1)
    assert Settings().disconnect_poll_s == 4.0

    async with fake_that_says({}, {"delay_s": 60}, disconnect_poll_s=0.2) as fake:
        running = asyncio.create_task(send(http, fake, recording("chat/plain")["request"]))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        running.cancel()
        await fake.wait_until(lambda seen: seen[0].left is not None)
        seen = fake.requests[0]

    assert seen.left is not None
    assert seen.left - seen.arrived == pytest.approx(0.2, abs=0.1)
    assert (seen.outcome, seen.aborted) == ("disconnected", True)


@pytest.mark.parametrize("name", ["none", "wrong", "key", "admin"])
async def test_keys_open_the_recorded_routes(name: str, http: aiohttp.ClientSession) -> None:
    keys = {"none": None, "wrong": "wrong", "key": "sk-test", "admin": "sk-admin"}
    table = recording("auth/table")["status"]
    served: tuple[str, ...] = (
        "/health",
        "/health_generate",
        "/ready",
        "/ping",
        "/metrics",
        "/v1/models",
    )
    served += ("/v1/loads", "/model_info", "/server_info", "/abort_request", "/flush_cache")
    headers = {"content-type": "application/json"}
    if keys[name]:
        headers["authorization"] = f"Bearer {keys[name]}"
    changes: Json = {"api_key": "sk-test", "admin_api_key": "sk-admin", "health_delay_s": 0.0}
    async with fake_that_says({}, **changes) as fake:
        for route, statuses in table.items():
            method, path = route.split()
            if path not in served:
                continue
            request: Json = {"method": method, "path": path, "headers": headers}
            if method == "POST":
                request["body"] = {"rid": "none"}
            assert (await send(http, fake, request))["status"] == statuses[name], route


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tools/replay_call_unanswered", "is not answered"),
        ("tools/replay_tool_no_id", "which no assistant message made"),
        ("tools/replay_tool_wrong_id", "which no assistant message made"),
        ("tools/replay_tool_without_call", "which no assistant message made"),
    ],
)
async def test_strict_mode_refuses_the_holes_that_sglang_accepts(
    name: str, problem: str, http: aiohttp.ClientSession
) -> None:
    found = recording(name)
    assert found["response"]["status"] == 200
    async with fake_that_says({}, strict=True) as fake:
        answer = await send(http, fake, found["request"])

    assert answer["status"] == 400
    assert answer["body"]["type"] == "FakeStrict" and problem in answer["body"]["message"]


@pytest.mark.parametrize("name", ["replay_after_tool", "replay_nine_char_id"])
async def test_strict_mode_accepts_a_whole_history(name: str, http: aiohttp.ClientSession) -> None:
    async with fake_that_says({"content": "ok"}, strict=True) as fake:
        answer = await send(http, fake, recording(f"tools/{name}")["request"])
    assert answer["status"] == 200


async def test_a_call_of_a_tool_that_was_not_offered_is_passed_on_only_if_told_so(
    http: aiohttp.ClientSession,
) -> None:
    found = recording("forward_unknown_tools/compact_unknown_tool")
    recorded = found["response"]["body"]["choices"][0]
    reply = {"tool_calls": [call["function"] for call in recorded["message"]["tool_calls"]]}
    for forward, finish in ((True, recorded["finish_reason"]), (False, "stop")):
        async with fake_that_says(reply, forward_unknown_tools=forward) as fake:
            choice = (await send(http, fake, found["request"]))["body"]["choices"][0]
        assert choice["finish_reason"] == finish
        assert ("tool_calls" in choice["message"]) == forward


async def test_sigterm_turns_the_probes_off_at_once_and_ends_the_process_with_0(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    timeline = recording("shutdown/sigterm_idle_apikey")["timeline"]
    assert {"/ready": 503, "/health": 503}.items() <= {
        step["what"]: step["answer"] for step in timeline[:2]
    }.items()
    script = tmp_path / "script.yaml"
    turns = [{"reply": {"content": "still served"}, "delay_s": 0.3}]
    script.write_text(yaml.safe_dump({"conversations": [{"turns": turns}]}))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sglang_fake", "--script", str(script), "--port", "0", "--drain-linger-s", "0.1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "inference" / "fake")},
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 10)
        url = re.findall(rb"http://\S+", line)[0].decode()
        process.send_signal(signal.SIGTERM)
        line = await asyncio.wait_for(process.stdout.readline(), 10)
        assert b"drains" in line
        assert (await _status(http, f"{url}/ready")) == 503
        assert (await _status(http, f"{url}/health")) == 503
        # Recorded: a new request is still served, and the server waits for it.
        body = recording("chat/plain")["request"]["body"]
        async with http.post(f"{url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as response:
        return response.status
