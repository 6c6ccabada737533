"""Every reply gets a verdict, and only sound ones are run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.core.records import Reply, Verdict
from ratchet.core.replies import RawCall, RawReply
from ratchet.core.sizes import cut
from ratchet.core.tools import CATALOGUE
from ratchet.core.verdict import MAX_ARGUMENTS, MAX_CALLS, MAX_NOTE, MAX_TEXT, judge

BASH = RawCall("bash", '{"command": "ls"}')
FINISH = RawCall("finish", '{"summary": "done"}')


def no_check(_tool: str, _arguments: Mapping[str, Any]) -> str | None:
    return None


def judged(*calls: RawCall, text: str = "", reason: str = "stop", check: Any = no_check) -> Reply:
    raw = RawReply(text, "", calls, reason)
    return judge(
        raw, task_uid="u", turn=1, attempt=1, endpoint="e", tools=tuple(CATALOGUE), check=check
    )


def test_sound_calls_are_run() -> None:
    reply = judged(BASH, RawCall("grep", '{"pattern": "x"}'))
    assert reply.verdict is Verdict.CALLS and reply.verdict.runs
    assert [call.tool for call in reply.calls] == ["bash", "grep"]
    assert reply.calls[0].arguments == '{"command":"ls"}' and reply.raw == ""


def test_finish_makes_the_verdict_finish_wherever_it_stands() -> None:
    assert judged(FINISH, BASH).verdict is Verdict.FINISH


def test_finish_twice_is_malformed() -> None:
    assert judged(FINISH, FINISH).verdict is Verdict.MALFORMED


def test_text_alone_is_text_and_nothing_is_empty() -> None:
    assert judged(text="I am done").verdict is Verdict.TEXT
    assert judged(text=" \n").verdict is Verdict.EMPTY


def test_whole_calls_are_run_although_the_reply_was_cut_off() -> None:
    assert judged(BASH, reason="length").verdict is Verdict.CALLS


def test_a_cut_that_broke_something_is_truncated() -> None:
    assert judged(RawCall("bash", '{"comm'), reason="length").verdict is Verdict.TRUNCATED
    assert judged(text="and so", reason="length").verdict is Verdict.TRUNCATED


@pytest.mark.parametrize(
    "arguments", ['{"command"', "[1]", '"x"', '{"a": NaN}', '{"a": Infinity}', "[" * 100_000]
)
def test_arguments_that_are_no_json_object_are_malformed_and_kept_raw(arguments: str) -> None:
    reply = judged(BASH, RawCall("bash", arguments))
    assert reply.verdict is Verdict.MALFORMED and not reply.verdict.runs
    assert reply.calls == () and reply.raw.startswith('[{"arguments":')
    assert "call 1" in reply.note


def test_no_arguments_are_an_empty_object() -> None:
    assert judged(RawCall("bash", "")).calls[0].arguments == "{}"


def test_arguments_that_do_not_fit_the_schema_are_malformed_and_the_calls_are_kept() -> None:
    reply = judged(BASH, check=lambda _t, _a: "command is too short")
    assert reply.verdict is Verdict.MALFORMED and len(reply.calls) == 1
    assert "command is too short" in reply.note


def test_one_bad_call_keeps_all_from_being_run() -> None:
    reply = judged(BASH, RawCall("rm", "{}"))
    assert reply.verdict is Verdict.UNKNOWN_TOOL and not reply.verdict.runs
    assert "'rm'" in reply.note and "bash" in reply.note


@pytest.mark.parametrize("name", ["", "a b", "x" * 10_000, "\ud800"])
def test_a_name_that_no_server_would_take_back_is_kept_raw(name: str) -> None:
    reply = judged(RawCall(name, "{}"))
    assert reply.verdict is Verdict.UNKNOWN_TOOL and reply.calls == () and reply.raw
    assert len(reply.note.encode()) <= MAX_NOTE


def test_too_many_calls_are_too_large() -> None:
    assert judged(*[BASH] * MAX_CALLS).verdict is Verdict.CALLS
    reply = judged(*[BASH] * (MAX_CALLS + 1))
    assert reply.verdict is Verdict.TOO_LARGE and str(MAX_CALLS) in reply.note


def test_too_large_arguments_count_in_bytes_of_all_calls() -> None:
    room = MAX_ARGUMENTS - len('{"command":""}')
    fits = RawCall("bash", json.dumps({"command": "x" * room}))
    assert judged(fits).verdict is Verdict.CALLS
    wide = RawCall("bash", json.dumps({"command": "é" * (room // 2 + 1)}))
    assert judged(wide).verdict is Verdict.TOO_LARGE
    assert judged(fits, BASH).verdict is Verdict.TOO_LARGE


def test_a_content_filter_is_a_refusal() -> None:
    assert judged(text="", reason="content_filter").verdict is Verdict.REFUSED


def test_calls_in_old_words_are_translated_before_they_are_checked() -> None:
    seen = []
    judged(RawCall("read", '{"file_path": "a"}'), check=lambda t, a: seen.append((t, dict(a))))
    assert seen == [("read_file", {"path": "a"})]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)  # fmt: skip

names = st.text() | st.sampled_from(list(CATALOGUE))


@given(
    st.text(st.characters(codec=None, exclude_categories=[])),
    st.lists(st.tuples(names, st.text() | json_values.map(json.dumps)), max_size=4),
    st.sampled_from(["stop", "length", "tool_calls", "content_filter", "?"]),
)  # fmt: skip
def test_every_reply_gets_a_verdict_and_can_be_stored(
    text: str, calls: list[tuple[str, str]], reason: str
) -> None:
    reply = judged(*(RawCall(n, a) for n, a in calls), text=text, reason=reason)
    for stored in (reply.text, reply.note, reply.raw, *(c.arguments for c in reply.calls)):
        stored.encode("utf-8")
    for call in reply.calls:
        assert isinstance(json.loads(call.arguments), dict)


def test_long_text_is_cut_in_the_middle_and_says_so() -> None:
    text = cut("a" * MAX_TEXT + "b" * MAX_TEXT, MAX_TEXT)
    assert len(text.encode()) <= MAX_TEXT
    assert text.startswith("aaa") and text.endswith("bbb") and "bytes cut" in text


@given(st.text(max_size=300), st.integers(80, 200))
def test_cut_keeps_within_its_limit_in_bytes(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short.encode()) <= limit
    if len(text.encode()) <= limit:
        assert short == text
