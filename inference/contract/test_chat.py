"""Chat completions that are not streamed."""

from __future__ import annotations

import pytest

from inference.contract.kit import Json, Server, forced, fresh, recorded, recording, shape

PARIS = "The capital of France is Paris."
SAME_SHAPE = [
    *("chat/plain", "chat/content_parts", "chat/unknown_field", "chat/priority_off"),
    *("chat/reasoning_effort", "chat/assistant_content_null", "chat/plain_longer_prefix"),
    *("tools/replay_after_tool", "tools/replay_nine_char_id", "tools/replay_arguments_object"),
]
HOLES = [
    *("tools/replay_call_unanswered", "tools/replay_tool_no_id"),
    *("tools/replay_tool_wrong_id", "tools/replay_tool_without_call"),
]


def same_shape(server: Server, found: Json, wanted: Json) -> bool:
    """Whether two completions have the same fields; calls, cache and stop token aside, which
    depend on the model and on --enable-cache-report."""
    return _bare(found) == _bare(wanted)


def _bare(body: Json) -> Json:
    bare: Json = shape(body)
    bare["choices"][0]["message"].pop("tool_calls", None)
    bare["choices"][0].pop("matched_stop")
    bare["usage"].pop("prompt_tokens_details")
    return bare


@recorded(*SAME_SHAPE)
@pytest.mark.parametrize("name", SAME_SHAPE)
async def test_an_answer_has_the_recorded_fields(name: str, server: Server) -> None:
    wanted = recording(name)
    answer = await server.send(wanted["request"])
    assert answer.status == 200
    assert same_shape(server, answer.json, wanted["response"]["body"])


@recorded(*HOLES)
@pytest.mark.parametrize("name", HOLES)
async def test_a_history_with_holes_is_served_all_the_same(name: str, server: Server) -> None:
    assert recording(name)["response"]["status"] == 200
    assert (await server.send(recording(name)["request"])).status == 200


@recorded("chat/unknown_model", "chat/no_model")
@pytest.mark.parametrize("name", ["chat/unknown_model", "chat/no_model"])
async def test_any_model_name_is_served_and_said_back(name: str, server: Server) -> None:
    wanted = recording(name)
    answer = await server.send(wanted["request"])
    assert answer.status == 200
    assert answer.json["model"] == wanted["response"]["body"]["model"]


@recorded("chat/rid_only")
async def test_a_rid_comes_back_as_the_id(server: Server) -> None:
    request = recording("chat/rid_only")["request"]
    assert recording("chat/rid_only")["response"]["body"]["id"] == request["body"]["rid"]
    rid = fresh("rid")
    answer = await server.send({**request, "body": {**request["body"], "rid": rid}})
    assert answer.json["id"] == rid


@recorded("chat/max_tokens_cut")
async def test_an_answer_that_is_cut_says_length(server: Server) -> None:
    wanted = recording("chat/max_tokens_cut")["response"]["body"]["choices"][0]
    answer = await server.ask(regex=forced(PARIS), max_tokens=2)
    assert answer.choice["finish_reason"] == wanted["finish_reason"] == "length"
    assert answer.choice["matched_stop"] is wanted["matched_stop"] is None
    assert PARIS.startswith(answer.choice["message"]["content"])
    assert answer.json["usage"]["completion_tokens"] == 2


@recorded("chat/plain_same_again", "chat/cache_salt_a1", "chat/cache_salt_a2", "chat/cache_salt_b")
async def test_a_salt_separates_the_prefix_cache(server: Server) -> None:
    if not server.cache_report:
        pytest.skip("needs a server with --enable-cache-report")
    names = ("chat/cache_salt_a1", "chat/cache_salt_a2", "chat/cache_salt_b")
    theirs = [cached(recording(name)["response"]["body"]) for name in names]
    salts = fresh("a"), fresh("b")
    text = "What is the capital of France? Answer in one sentence. " * 20
    asked = [
        await server.ask(text, cache_salt=salt, max_tokens=4) for salt in (*salts[:1] * 2, salts[1])
    ]
    ours = [cached(answer.json) for answer in asked]
    assert [count > 0 for count in ours] == [count > 0 for count in theirs] == [False, True, False]


def cached(body: Json) -> int:
    found: int = body["usage"]["prompt_tokens_details"]["cached_tokens"]
    return found
