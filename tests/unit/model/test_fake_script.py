"""Which turn the fake plays, and what it says about a wrong script."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sglang_fake import FakeSGLang, ScriptError, Settings, check_script, load_script, parse_script

Json = dict[str, Any]
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def fake(*conversations: Json, **settings: Any) -> FakeSGLang:
    return FakeSGLang(check_script({"conversations": list(conversations)}), Settings(**settings))


def history(replies: int, goal: str = "Mend it.", result: str = "done") -> list[Json]:
    """A history with so many answered replies."""
    messages: list[Json] = [{"role": "user", "content": goal}]
    for number in range(replies):
        function = {"name": "bash", "arguments": "{}"}
        call = {"id": f"id{number:07}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    return messages


async def ask(
    http: aiohttp.ClientSession,
    server: FakeSGLang,
    messages: list[Json],
    key: str = "",
    **body: Any,
) -> tuple[int, Json]:
    async with http.post(
        f"{server.base_url}/chat/completions",
        json={"messages": messages, "tools": TOOLS, **body},
        headers={"x-smg-routing-key": key},
    ) as response:
        answer: Json = await response.json(content_type=None)
        return response.status, answer


def content(answer: tuple[int, Json]) -> str:
    status, body = answer
    assert status == 200, body
    found: str = body["choices"][0]["message"]["content"]
    return found


def turns(*texts: str) -> list[Json]:
    return [{"reply": {"content": text}} for text in texts]


async def test_the_number_of_replies_in_the_history_chooses_the_turn(
    http: aiohttp.ClientSession,
) -> None:
    async with fake({"turns": turns("first", "second", "third")}) as server:
        said = [content(await ask(http, server, history(n))) for n in (2, 0, 1, 0)]
    assert said == ["third", "first", "second", "first"]


async def test_a_restarted_fake_goes_on_where_the_history_is(http: aiohttp.ClientSession) -> None:
    for number, wanted in enumerate(("first", "second")):
        async with fake({"turns": turns("first", "second")}) as server:
            assert content(await ask(http, server, history(number))) == wanted


async def test_conversations_are_told_apart_by_goal_key_rid_and_model(
    http: aiohttp.ClientSession,
) -> None:
    matches = [{"contains": "bug"}, {"routing_key": "k"}, {"rid_prefix": "r-"}, {"model": "m"}, {}]
    names = ["goal", "key", "rid", "model", "rest"]
    all_of_them = [
        {"match": match, "turns": turns(name)} for match, name in zip(matches, names, strict=True)
    ]
    async with fake(*all_of_them) as server:
        assert content(await ask(http, server, history(0, "a bug here"))) == "goal"
        assert content(await ask(http, server, history(0), key="k")) == "key"
        assert content(await ask(http, server, history(0), rid="r-1")) == "rid"
        assert content(await ask(http, server, history(0), model="m")) == "model"
        assert content(await ask(http, server, history(0))) == "rest"


async def test_repeat_and_loop_fill_in_turn_and_key(http: aiohttp.ClientSession) -> None:
    call = {"name": "bash", "arguments": {"command": "echo {key}/{turn} ${HOME}"}}
    load = {"reply": {"tool_calls": [call]}, "repeat": 2}
    async with fake({"turns": [load, *turns("end {turn}")], "loop": True}) as server:
        answers = [await ask(http, server, history(n), key="uid") for n in (0, 1, 2, 3)]
    calls = [
        json.loads(a[1]["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])
        for a in (answers[0], answers[1], answers[3])
    ]
    commands = [found["command"] for found in calls]
    assert commands == [f"echo uid/{turn} ${{HOME}}" for turn in (1, 2, 4)]
    assert content(answers[2]) == "end 3"


PARTS = [
    {"type": "text", "text": "Mend the page."},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "bug+" * 10_000}},
    {"type": "text", "text": "Turns 1 to 2 of this task are no longer shown."},
]


async def test_a_model_with_vision_takes_images_and_matches_the_text_beside_them(
    http: aiohttp.ClientSession,
) -> None:
    found = {"match": {"contains": "bug"}, "turns": turns("bug")}
    page = {"match": {"contains": "page"}, "turns": turns("first", "second", "third")}
    async with fake(found, page, vision=True) as server:
        status, body = await ask(http, server, [{"role": "user", "content": PARTS}])
    assert content((status, body)) == "third"
    assert 1024 < body["usage"]["prompt_tokens"] < 1500


async def test_a_model_of_text_refuses_images_in_the_recorded_words(
    http: aiohttp.ClientSession,
) -> None:
    async with fake({"turns": turns("first")}) as server:
        status, body = await ask(http, server, [{"role": "user", "content": PARTS}])
    assert status == 400
    assert body["message"] == (
        "Model only supports text input; received unsupported content type 'image_url'."
    )


@pytest.mark.parametrize("kind", ["audio_url", None])
async def test_a_model_with_vision_still_refuses_what_is_no_image(
    http: aiohttp.ClientSession, kind: str | None
) -> None:
    async with fake({"turns": turns("first")}, vision=True) as server:
        status, _ = await ask(http, server, [{"role": "user", "content": [{"type": kind}]}])
    assert status == 400


async def test_raw_arguments_go_out_as_they_are(http: aiohttp.ClientSession) -> None:
    reply = {"tool_calls": [{"name": "bash", "arguments": '{"command": '}]}
    async with fake({"turns": [{"reply": reply}]}) as server:
        _, body = await ask(http, server, history(0))
    function = body["choices"][0]["message"]["tool_calls"][0]["function"]
    assert function["arguments"] == '{"command": '


async def test_a_fault_is_played_so_many_times_for_each_task_and_turn(
    http: aiohttp.ClientSession,
) -> None:
    turn = {"error": {"kind": "queue_full", "times": 2}, "reply": {"content": "at last"}}
    async with fake({"turns": [turn, turn]}) as server:
        for key, number in (("a", 0), ("b", 0), ("a", 1)):
            statuses = [(await ask(http, server, history(number), key))[0] for _ in range(3)]
            assert statuses == [503, 503, 200]
        server.reset()
        assert (await ask(http, server, history(0), "a"))[0] == 503


async def test_a_turn_with_an_error_alone_always_fails(http: aiohttp.ClientSession) -> None:
    async with fake({"turns": [{"error": {"status": 418, "body": "no"}}]}) as server:
        for _ in range(2):
            async with http.post(
                f"{server.base_url}/chat/completions", json={"messages": history(0)}
            ) as response:
                assert (response.status, await response.text()) == (418, "no")


async def test_an_expectation_that_fails_says_what_was_found(http: aiohttp.ClientSession) -> None:
    turn = {"reply": {"content": "good"}, "expect": {"contains": "1 failed", "tools": "bash"}}
    async with fake({"name": "demo", "turns": [*turns("x"), turn]}) as server:
        met = await ask(http, server, history(1, result="1 failed, 2 passed"))
        status, body = await ask(http, server, history(1, result="3 passed"))
        older = await ask(http, server, history(1, goal="1 failed"))
    assert content(met) == "good"
    assert (status, older[0]) == (400, 400)
    assert body["type"] == "FakeExpect"
    assert "conversation demo, turn 2: expected '1 failed'" in body["message"]
    assert "3 passed" in body["message"]


async def test_excluded_text_and_missing_tools_fail_too(http: aiohttp.ClientSession) -> None:
    bad = {"turns": [{"reply": {}, "expect": {"excludes": "Mend"}}]}
    tools = {"turns": [{"reply": {}, "expect": {"tools": ["bash", "finish"]}}]}
    for conversation, words in ((bad, "did not expect 'Mend'"), (tools, "['finish']")):
        async with fake(conversation) as server:
            status, body = await ask(http, server, history(0))
        assert status == 400 and words in body["message"]


async def test_a_request_that_the_script_does_not_cover_gets_a_sentence(
    http: aiohttp.ClientSession,
) -> None:
    async with fake({"match": {"contains": "bug"}, "turns": turns("one")}) as server:
        _, other = await ask(http, server, history(0, "something else"))
        status, past = await ask(http, server, history(1, "a bug"))
    assert "no conversation of the script matches" in other["message"]
    assert status == 400 and "has 1 turns, but the request asks for turn 2" in past["message"]


def hole(change: str) -> list[Json]:
    messages = history(2)
    if change == "unanswered":
        del messages[2]
    elif change == "unanswered at the end":
        del messages[4]
    elif change == "unknown":
        messages[2]["tool_call_id"] = "other"
    elif change == "answered twice":
        messages.insert(3, dict(messages[2]))
    elif change == "id used twice":
        messages[3]["tool_calls"][0]["id"] = messages[4]["tool_call_id"] = "id0000000"
    elif change == "no id":
        del messages[1]["tool_calls"][0]["id"]
    elif change == "not an object":
        messages[1]["tool_calls"][0]["function"]["arguments"] = "[1]"
    return messages


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("unanswered", "'id0000000' of message 1 is not answered before the next message"),
        ("unanswered at the end", "'id0000001' of message 3 is not answered"),
        ("unknown", "answers tool call 'other', which no assistant message made"),
        ("answered twice", "answers tool call 'id0000000' a second time"),
        ("id used twice", "id 'id0000000' is used twice"),
        ("no id", "has no id"),
        ("not an object", "are not an object"),
    ],
)
async def test_strict_mode_names_each_hole_and_sglang_accepts_it(
    change: str, words: str, http: aiohttp.ClientSession
) -> None:
    conversation = {"turns": turns("a", "b", "c")}
    async with fake(conversation) as strict, fake(conversation, strict=False) as lax:
        status, body = await ask(http, strict, hole(change))
        accepted, _ = await ask(http, lax, hole(change))
    assert (status, body["type"], accepted) == (400, "FakeStrict", 200)
    assert words in body["message"]


@pytest.mark.parametrize("body", [{"n": 2}, {"stream": True}])
async def test_what_the_fake_cannot_do_is_refused_in_its_own_name(
    body: Json, http: aiohttp.ClientSession
) -> None:
    torn = {"reply": {"text": '[TOOL_CALLS] [{"name": "bash", "arguments": {}}]'}}
    async with fake({"turns": [torn]}) as server:
        status, refused = await ask(http, server, history(0), **body)
    assert (status, refused["type"]) == (400, "FakeUnsupported")


async def test_what_was_seen_is_served_over_http(http: aiohttp.ClientSession) -> None:
    async with fake({"name": "demo", "turns": turns("x", "y")}) as server:
        await ask(http, server, history(1), key="a", rid="r-1")
        await ask(http, server, history(1), key="a", rid="r-2")
        await ask(http, server, history(0), key="b")
        async with http.get(f"{server.url}/fake/requests", params={"key": "a"}) as response:
            first, second = (await response.json())["requests"]
        async with http.post(f"{server.url}/fake/reset") as response:
            assert response.status == 200
        assert server.requests == []
    assert (first["rid"], first["turn"], first["conversation"]) == ("r-1", 2, "demo")
    assert (first["messages"], first["status"], first["outcome"]) == (3, 200, "answered")
    assert first["arrived"] <= first["left"] and first["aborted"] is False
    assert first["digest"] == second["digest"]


async def test_a_growing_conversation_is_read_from_the_cache_of_its_own_salt(
    http: aiohttp.ClientSession,
) -> None:
    def cached(answer: tuple[int, Json]) -> int:
        found: int = answer[1]["usage"]["prompt_tokens_details"]["cached_tokens"]
        return found

    async with fake({"turns": turns("x", "y", "z"), "loop": True}) as server:
        cold = cached(await ask(http, server, history(5), cache_salt="a"))
        warm = cached(await ask(http, server, history(6), cache_salt="a"))
        other = cached(await ask(http, server, history(6), cache_salt="b"))
    assert cold == other == 0
    assert warm > 100


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("conversations: [", "is not YAML"),
        ("conversations: []", "conversations: "),
        ("conversations: [{turns: []}]", "conversations.0.turns: "),
        ("conversations: [{turns: [{}]}]", "a turn needs 'reply' or 'error'"),
        ("conversations: [{turns: [{repley: {}}]}]", "conversations.0.turns.0.repley: "),
        ("conversations: [{turns: [{error: {}}]}]", "exactly one of 'kind' and 'status'"),
        ("conversations: [{turns: [{error: {kind: nope}}]}]", "error.kind: "),
        ("conversations: [{turns: [{error: {kind: hang, times: 1}}]}]", "needs a 'reply'"),
        ("turns: []", "conversations: "),
    ],
)
def test_a_wrong_script_is_refused_with_the_place(script: str, words: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(script, "demo.yaml")
    assert "demo.yaml" in str(caught.value) and words in str(caught.value)


def test_a_script_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="cannot read the script"):
        load_script(tmp_path / "none.yaml")


def test_the_script_in_the_readme_is_one() -> None:
    readme = (Path(__file__).parents[3] / "inference" / "fake" / "README.md").read_text()
    example = readme.partition("```yaml\n")[2].partition("```")[0]
    script = parse_script(example, "README.md")
    assert [conversation.name for conversation in script.conversations] == ["fix-the-bug", "load"]


async def test_turns_that_are_no_longer_shown_count(http: aiohttp.ClientSession) -> None:
    goal = "Mend it.\n\nTurns 1 to 2 of this task are no longer shown, because ..."
    async with fake({"turns": turns("first", "second", "third", "fourth")}) as server:
        assert content(await ask(http, server, history(0, goal))) == "third"
        assert content(await ask(http, server, history(1, goal))) == "fourth"
