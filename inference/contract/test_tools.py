"""What the server's tool parser makes of a text that the model is forced to write."""

from __future__ import annotations

import json

import pytest

from inference.contract.kit import RECORDINGS, Json, Server, needs, recorded, recording


def texts(folder: str, *but: str) -> list[str]:
    """Recordings of forced texts that are not streamed."""
    found = sorted(path.stem for path in (RECORDINGS / folder).glob("*.json"))
    return [f"{folder}/{name}" for name in found if name not in but and "stream" not in name]


MISTRAL, QWEN = texts("tools_forced_mistral"), texts("tools_forced_hermes")


async def as_recorded(name: str, server: Server) -> None:
    wanted = recording(name)
    choice = wanted["response"]["body"]["choices"][0]
    answer = await server.send(wanted["request"])
    if name.endswith("cut"):
        # Where a text is cut depends on the tokenizer.
        assert answer.choice["finish_reason"] == "length"
        assert all(call in calls_of(choice) for call in answer.calls)
        return
    assert answer.choice["message"]["content"] == choice["message"]["content"]
    assert answer.calls == calls_of(choice)
    assert ("tool_calls" in answer.choice["message"]) == ("tool_calls" in choice["message"])
    assert answer.choice["finish_reason"] == choice["finish_reason"]


def calls_of(choice: Json) -> list[tuple[str, str]]:
    calls = choice["message"].get("tool_calls") or ()
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


@recorded(*MISTRAL)
@needs(tool_call_parser="mistral")
@pytest.mark.parametrize("name", MISTRAL)
async def test_the_mistral_parser_reads_a_text_as_recorded(name: str, server: Server) -> None:
    await as_recorded(name, server)


@recorded(*QWEN)
@needs(tool_call_parser="qwen")
@pytest.mark.parametrize("name", QWEN)
async def test_the_qwen_parser_reads_a_text_as_recorded(name: str, server: Server) -> None:
    await as_recorded(name, server)


@recorded("no_parser/raw_markup")
@needs(tool_call_parser=None)
async def test_without_a_parser_the_markup_stays_in_the_text(server: Server) -> None:
    await as_recorded("no_parser/raw_markup", server)


@recorded("tools_forced_mistral/array_bad_json", "tools_forced_mistral/compact_unknown_tool")
@needs(tool_call_parser="mistral")
@pytest.mark.parametrize("name", ["array_bad_json", "compact_unknown_tool"])
async def test_a_lost_call_looks_like_an_empty_answer(name: str, server: Server) -> None:
    """The one that ends tasks: a client that takes "no call" for "done" believes this."""
    answer = await server.send(recording(f"tools_forced_mistral/{name}")["request"])
    assert answer.status == 200 and answer.choice["finish_reason"] == "stop"
    assert not answer.choice["message"]["content"] and not answer.calls


@recorded("tools_forced_mistral/compact_two", "tools_forced_hermes/one_call")
@needs(tool_call_parser="mistral")
async def test_ids_of_calls_are_fresh_and_arguments_are_json(server: Server) -> None:
    answer = await server.send(recording("tools_forced_mistral/compact_two")["request"])
    calls = answer.choice["message"]["tool_calls"]
    assert [call["index"] for call in calls] == [0, 1]
    assert len({call["id"] for call in calls}) == 2
    for call in calls:
        # Longer than the nine letters that Mistral's own templates take: clients rename them.
        assert len(call["id"]) > 9 and isinstance(json.loads(call["function"]["arguments"]), dict)
