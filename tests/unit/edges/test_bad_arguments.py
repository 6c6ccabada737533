"""Every tool with every kind of bad argument: nothing is run, and the model is told what to mend."""

from __future__ import annotations

import json

import pytest
from ratchet.core.records import Reply, Verdict
from ratchet.core.replies import RawCall, RawReply
from ratchet.core.tools import CATALOGUE
from ratchet.core.verdict import MAX_NOTE, judge
from ratchet.edges.schemas import check_arguments

from tests.unit.bad_arguments import ALL, GOOD, Bad


def judged(tool: str, arguments: str) -> Reply:
    raw = RawReply("", "", (RawCall(tool, arguments),), "tool_calls")
    return judge(
        raw, task_uid="u", turn=1, attempt=1, endpoint="e", tools=tuple(CATALOGUE),
        check=check_arguments,
    )  # fmt: skip


@pytest.mark.parametrize("tool", CATALOGUE)
def test_good_arguments_are_run(tool: str) -> None:
    assert judged(tool, json.dumps(GOOD[tool])).verdict.runs


@pytest.mark.parametrize("bad", ALL, ids=str)
def test_bad_arguments_run_nothing_and_are_named(bad: Bad) -> None:
    reply = judged(bad.tool, json.dumps(bad.arguments))

    assert reply.verdict is (Verdict.TOO_LARGE if bad.kind == "large" else Verdict.MALFORMED)
    assert reply.note.startswith("Nothing was run: ") and reply.note.endswith(".")
    assert len(reply.note.encode()) <= 400 < MAX_NOTE
    match bad.kind:
        case "large":
            assert "at most 65536 are allowed" in reply.note
        case "surrogate":
            assert f"call 0 ({bad.tool}) hold half a character" in reply.note
        case _:
            assert f"call 0 ({bad.tool}) do not fit: " in reply.note and bad.about in reply.note


@pytest.mark.parametrize("tool", CATALOGUE)
@pytest.mark.parametrize(
    "arguments",
    ["[]", "7", '"ls"', "null", "{", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000, "9" * 5000],
    ids=["list", "number", "text", "null", "torn", "NaN", "infinite", "deep", "long number"],
)
def test_arguments_that_are_no_object_run_nothing(tool: str, arguments: str) -> None:
    reply = judged(tool, arguments)

    assert reply.verdict is Verdict.MALFORMED
    assert f"the arguments of call 0 ({tool}) are " in reply.note
    assert reply.note.endswith(".")
    assert len(reply.note.encode()) <= 400


def test_data_of_finish_may_hold_what_a_path_may_not() -> None:
    arguments = {"summary": "done", "result": {"text": "a\0b", "number": 10**30}}

    assert judged("finish", json.dumps(arguments)).verdict is Verdict.FINISH
