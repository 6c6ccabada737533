"""Requests that are refused, and the four shapes of an error."""

from __future__ import annotations

import pytest

from inference.contract.kit import Server, recorded, recording, shape, without_numbers

# Wrong requests whose answer depends on nothing but them. The words of two name SGLang's own
# classes and JSON parser.
WRONG = [
    *("empty_body", "empty_messages", "missing_messages", "wrong_type_messages", "bad_role"),
    *("malformed_json", "negative_max_tokens", "string_max_tokens", "temperature_negative"),
    *("top_p_2", "wrong_content_type", "tool_without_name", "not_an_object"),
    *("tool_choice_required_without_tools", "tool_choice_unknown_function"),
]
NAMES = [f"errors/{name}" for name in WRONG]
NAMES += ["tools/replay_arguments_not_json", "tools/replay_arguments_empty"]
OTHER_WORDS = ("errors/bad_role", "errors/malformed_json")


@recorded(*NAMES)
@pytest.mark.parametrize("name", NAMES)
async def test_a_wrong_request_is_refused_as_recorded(name: str, server: Server) -> None:
    wanted = recording(name)["response"]
    answer = await server.send(recording(name)["request"])
    assert answer.status == wanted["status"]
    if "body" not in wanted:
        assert answer.text == wanted["body_text"]
        return
    assert shape(answer.json) == shape(wanted["body"])
    if name not in OTHER_WORDS and "message" in wanted["body"]:
        line, wanted_line = (b["message"].splitlines()[0] for b in (answer.json, wanted["body"]))
        assert without_numbers(line) == without_numbers(wanted_line)


@recorded("chat/content_image_part", "endpoints/model_info")
async def test_a_model_of_text_refuses_an_image_and_says_so(server: Server) -> None:
    if (await server.get("/model_info")).json["has_image_understanding"]:
        pytest.skip("needs a server of a model that takes no images")
    wanted = recording("chat/content_image_part")["response"]
    answer = await server.send(recording("chat/content_image_part")["request"])
    assert answer.status == wanted["status"] == 400
    assert answer.json == wanted["body"]


@recorded("errors/context_too_long")
async def test_a_prompt_longer_than_the_context_is_a_400_that_says_so(server: Server) -> None:
    wanted = recording("errors/context_too_long")["response"]
    # At least one token a word, so that any tokenizer finds it too long.
    answer = await server.ask("word " * (server.context + 1000), max_tokens=1)
    assert answer.status == wanted["status"] == 400
    assert without_numbers(answer.json["message"]) == without_numbers(wanted["body"]["message"])


@recorded("errors/prompt_plus_max_tokens_too_long")
async def test_room_for_the_reply_that_does_not_fit_is_a_400(server: Server) -> None:
    wanted = recording("errors/prompt_plus_max_tokens_too_long")["response"]
    answer = await server.ask(max_tokens=server.context)
    assert answer.status == wanted["status"] == 400
    assert without_numbers(answer.json["message"]) == without_numbers(wanted["body"]["message"])
