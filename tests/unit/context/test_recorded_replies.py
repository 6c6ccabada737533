"""What each recorded reply of SGLang 0.5.23 turns out to be, and what the model is told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ratchet.core.config import Completion, ModelConfig
from ratchet.core.policy import after_reply
from ratchet.core.records import EndOutcome, Reply, Turn, Verdict
from ratchet.core.replies import FailureKind, ModelFailure, RawCall, RawReply
from ratchet.core.verdict import judge
from ratchet.edges.model_answers import read_reply

from tests.unit.context.conversation import configured

FOLDER = Path(__file__).parents[2] / "fixtures" / "sglang"
MODEL = ModelConfig("default", "http://model/v1", "m")
TOOLS = ("get_weather", "run_shell", "finish")
RUN, DONE = Verdict.CALLS, Verdict.FINISH
EMPTY, TEXT, CUT = Verdict.EMPTY, Verdict.TEXT, Verdict.TRUNCATED
BAD, UNKNOWN = Verdict.MALFORMED, Verdict.UNKNOWN_TOOL

RECORDED = [
    # One call, or several, that are whole.
    ("tools_forced_mistral/compact_one", RUN, ""),
    ("tools_forced_mistral/array_one", RUN, ""),
    ("tools_forced_mistral/compact_two", RUN, ""),
    ("tools_forced_mistral/array_two", RUN, ""),
    ("tools_forced_mistral/compact_text_before", RUN, ""),
    ("tools_forced_mistral/compact_text_after", RUN, ""),
    ("tools_forced_hermes/one_call", RUN, ""),
    ("tools_forced_hermes/two_calls", RUN, ""),
    ("tools_forced_hermes/two_calls_parallel_false", RUN, ""),
    ("tools_forced_hermes/text_then_call", RUN, ""),
    ("tools_forced_hermes/call_then_text", RUN, ""),
    ("tools/required_strict", DONE, ""),
    # The rest of the reply was cut off, and the server says nothing of it but `length`.
    ("tools_forced_mistral/compact_two_cut", RUN, ""),
    ("tools_forced_hermes/second_call_cut", RUN, ""),
    # The one call was cut off: nothing of it comes back.
    ("tools_forced_mistral/compact_cut", CUT, "cut off at the token limit"),
    ("tools_forced_mistral/array_cut", CUT, "cut off at the token limit"),
    ("tools_forced_hermes/cut", CUT, "cut off at the token limit"),
    ("chat/max_tokens_cut", CUT, "cut off at the token limit"),
    # Broken JSON and unknown tools are dropped without a word.
    ("tools_forced_mistral/compact_bad_json", EMPTY, "may be dropped on their way"),
    ("tools_forced_mistral/array_bad_json", EMPTY, "may be dropped on their way"),
    ("tools_forced_hermes/bad_json", EMPTY, "may be dropped on their way"),
    ("tools_forced_mistral/compact_unknown_tool", EMPTY, "get_weather, run_shell, finish"),
    ("tools_forced_mistral/array_unknown_tool", EMPTY, "get_weather, run_shell, finish"),
    ("tools_forced_hermes/unknown_tool", EMPTY, "get_weather, run_shell, finish"),
    ("tools_forced_hermes/no_end_tag", EMPTY, "The reply was empty."),
    # With SGLANG_FORWARD_UNKNOWN_TOOLS=1 they arrive.
    ("forward_unknown_tools/compact_unknown_tool", UNKNOWN, "there is no tool 'launch_rocket'"),
    ("forward_unknown_tools/array_unknown_tool", UNKNOWN, "there is no tool 'launch_rocket'"),
    # An unknown call beside a known one is dropped: what is left looks whole.
    ("tools_forced_mistral/compact_known_then_unknown", RUN, ""),
    ("tools_forced_hermes/known_then_unknown", RUN, ""),
    # Arguments that do not fit, of any shape.
    ("tools_forced_hermes/wrong_arguments", BAD, "city is missing"),
    ("tools_forced_hermes/no_arguments", BAD, "city is missing"),
    ("tools_forced_hermes/arguments_as_string", BAD, "are not a JSON object"),
    ("tools_mistral/named", BAD, "are not a JSON object"),
    # Calls that the server left in the text.
    ("no_parser/raw_markup", BAD, "the server needs the tool parser of its model"),
    ("tools_forced_mistral/array_twice", BAD, "'[TOOL_CALLS'"),
    ("tools_mistral/named_other_wanted", CUT, "'[TOOL_CALLS'"),
    # Text.
    ("tools_forced_mistral/text_with_brackets", TEXT, ""),
    ("tools_forced_mistral/text_mentions_marker", TEXT, ""),
    ("tools_forced_mistral/text_with_brackets_no_tools", TEXT, ""),
    ("chat/plain", TEXT, ""),
]  # fmt: skip


def city(_tool: str, arguments: Mapping[str, Any]) -> str | None:
    fits = _tool != "get_weather" or isinstance(arguments.get("city"), str)
    return None if fits else "city is missing"


def recorded(name: str) -> RawReply | ModelFailure:
    found = json.loads((FOLDER / f"{name}.json").read_text())
    exchange = found["exchanges"][0] if "exchanges" in found else found
    assert exchange["response"]["status"] == 200
    return read_reply(json.dumps(exchange["response"]["body"]).encode(), MODEL)


def judged(raw: RawReply | ModelFailure) -> Reply:
    assert isinstance(raw, RawReply)
    return judge(raw, task_uid="u", turn=1, attempt=1, endpoint="default", tools=TOOLS, check=city)


@pytest.mark.parametrize(("name", "verdict", "note"), RECORDED, ids=[row[0] for row in RECORDED])
def test_a_recorded_reply_gets_its_verdict(name: str, verdict: Verdict, note: str) -> None:
    reply = judged(recorded(name))
    assert (reply.verdict, note in reply.note) == (verdict, True)
    assert bool(reply.note) == (not verdict.runs and verdict is not TEXT)


def test_all_that_a_parser_was_recorded_to_make_of_a_text_is_in_the_table() -> None:
    """Of requests that are not streamed: ours never are."""
    folders = ("tools_forced_mistral", "tools_forced_hermes", "forward_unknown_tools")
    there = {f"{path.parent.name}/{path.stem}" for f in folders for path in (FOLDER / f).iterdir()}
    assert {name for name in there if "/stream_" not in name} <= {row[0] for row in RECORDED}


@pytest.mark.parametrize("name", ["cancel/abort_nonstream", "cancel/abort_waiting"])
def test_an_aborted_reply_is_no_reply(name: str) -> None:
    failure = recorded(name)
    assert isinstance(failure, ModelFailure) and failure.kind is FailureKind.RETRY


FINISH = RawCall("finish", '{"summary": "done"}')
UNSOUND = [
    RawReply("", "", (FINISH,), "length"),
    RawReply('[TOOL_CALLS]bash[ARGS]{"command": "make"}', "", (FINISH,), "tool_calls"),
    RawReply("", "", (FINISH, RawCall("launch_rocket", "{}")), "tool_calls"),
    RawReply("", "", (FINISH, RawCall("get_weather", '{"city": "Par')), "length"),
    RawReply("", "", (FINISH, RawCall("get_weather", '{"city": Paris}')), "tool_calls"),
    RawReply("", "", (FINISH, RawCall("get_weather", "{}")), "tool_calls"),
    RawReply('<tool_call>\n{"name": "finish"}\n</tool_call>', "", (), "stop"),
    RawReply("I call finish.", "", (), "tool_calls"),
    RawReply("I am nearly", "", (), "length"),
    RawReply("", "", (), "stop"),
]


@pytest.mark.parametrize("raw", UNSOUND)
@pytest.mark.parametrize("completion", Completion)
def test_a_reply_that_is_not_sound_never_ends_a_task_as_succeeded(
    raw: RawReply, completion: Completion
) -> None:
    config = replace(configured(), completion=completion)
    reply = judged(raw)
    assert not reply.verdict.runs
    text = judged(RawReply("I am done.", "", (), "stop"))
    turns = tuple(
        Turn(n, 1, 1, "l", "", "", each) for n, each in enumerate((text, *[reply] * 9), start=1)
    )
    ends = [after_reply(config, turns[:length]) for length in range(1, len(turns) + 1)]
    assert all(end is None or end.outcome is EndOutcome.FAILED for end in ends)
    assert ends[-1] is not None
