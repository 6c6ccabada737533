"""Whatever a model, a sandbox or a cluster says, what is written of it is within the CRDs' bounds."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.api.task import AgentTaskStatus
from ratchet.api.turn import AgentTurn
from ratchet.core.conditions import Phase, Reason
from ratchet.core.config import ModelConfig
from ratchet.core.evolve import finish_arguments
from ratchet.core.records import End, EndOutcome, Record, Reply, Turn, Verdict
from ratchet.core.replies import RawCall, RawReply
from ratchet.core.status import conditions_of_failure
from ratchet.core.tools import CATALOGUE
from ratchet.core.verdict import MAX_ARGUMENTS, judge
from ratchet.edges import taskstatus, wire
from ratchet.edges.model_answers import read_failure, read_reply
from ratchet.edges.sandbox import _RecordBody
from ratchet.edges.schemas import check_arguments
from ratchet.ports import TaskRef

TASK = TaskRef("space", "task", "0f3c9a1e-5555-4444-8888-121212121212")
MODEL = ModelConfig("default", "http://m", "m")
SHA = "a" * 64
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def judged(raw: RawReply) -> Reply:
    return judge(
        raw, task_uid=TASK.uid, turn=1, attempt=1, endpoint="e", tools=tuple(CATALOGUE),
        check=check_arguments,
    )  # fmt: skip


def turn_of(reply: Reply) -> Turn:
    return Turn(1, 1, 1, "l", SHA, f"sha256:{SHA}", reply)


def is_taken(record: Record) -> None:
    """The API server would take the record, and it is read as it was written."""
    written = wire.to_object(TASK, record)
    AgentTurn.model_validate(written)
    assert wire.from_object(TASK, written) == record


def finish_with(result: object) -> RawReply:
    arguments = json.dumps({"summary": "s", "result": result}, separators=(",", ":"))
    return RawReply(calls=(RawCall("finish", arguments),), finish_reason="tool_calls")


@given(st.text(), st.text(), st.integers(0, 100))
def test_long_words_of_a_server_are_cut(reason: str, model: str, times: int) -> None:
    raw = RawReply("text", "", (), reason * times, model=model * times)
    is_taken(turn_of(judged(raw)))


def test_a_finish_reason_and_a_model_of_any_length_fit_their_bounds() -> None:
    reply = judged(RawReply("text", "", (), "r" * 10_000, model="m" * 10_000))
    assert (len(reply.finish_reason), len(reply.model)) == (64, 512)


def test_counts_that_nobody_can_have_used_are_not_believed() -> None:
    usage = {"prompt_tokens": 10**30, "completion_tokens": -5}
    body = {"choices": [{"message": {"content": "x"}}], "usage": usage}
    raw = read_reply(json.dumps(body).encode(), MODEL)
    assert isinstance(raw, RawReply)
    is_taken(turn_of(judged(raw)))


@pytest.mark.parametrize(
    "retry_after", ["999999999", "Wed, 01 Jan 99999999999 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"]
)  # fmt: skip
def test_a_server_cannot_make_a_task_wait_for_years(retry_after: str) -> None:
    failed = read_failure(503, b"", retry_after, MODEL)
    assert (failed.retry_after_s or 0) <= 3600


def test_the_largest_result_of_finish_is_recorded() -> None:
    reply = judged(finish_with({"a": [1] * (MAX_ARGUMENTS // 2 - 30)}))
    assert reply.verdict is Verdict.FINISH
    summary, result = finish_arguments(turn_of(reply))
    end = End(2, 1, SHA, EndOutcome.SUCCEEDED, Reason.FINISHED, "m", summary, result)
    is_taken(end)


def test_a_number_that_json_cannot_spell_is_malformed() -> None:
    raw = RawReply(calls=(RawCall("finish", '{"summary":"s","result":{"a":1e999}}'),))
    reply = judged(raw)
    assert reply.verdict is Verdict.MALFORMED and "too large" in reply.note


def test_numbers_that_json_can_spell_are_kept() -> None:
    reply = judged(finish_with({"a": 1e300, "b": -0.5}))
    _, result = finish_arguments(turn_of(reply))
    assert math.isclose(json.loads(result)["a"], 1e300)


def test_arguments_that_no_check_can_follow_are_malformed() -> None:
    def check(_tool: str, _arguments: object) -> str | None:
        raise RecursionError

    raw = RawReply(calls=(RawCall("bash", '{"command":"ls"}'),))
    reply = judge(raw, task_uid="u", turn=1, attempt=1, endpoint="e", tools=("bash",), check=check)
    assert reply.verdict is Verdict.MALFORMED and "nested too deeply" in reply.note


def test_a_long_trouble_is_cut_where_the_status_shows_it() -> None:
    text = "This field and that field do not fit. " * 100
    conditions = conditions_of_failure(Reason.CONFIG_INVALID, text)
    fields = taskstatus.outlook_fields(
        {"metadata": {"generation": 1}}, Phase.FAILED, Reason.CONFIG_INVALID, text, conditions, NOON
    )
    AgentTaskStatus.model_validate(fields)


def test_what_a_runner_says_of_its_exit_is_only_kept_where_it_can_be_stored() -> None:
    body = {
        "key": "k",
        "state": "Finished",
        "outcome": "Ok",
        "content": "",
        "meta": {"exitCode": 2**40},
    }
    assert _RecordBody.model_validate(body).found().receipt.exit_code is None


def test_an_outcome_that_we_have_no_word_for_is_passed_on() -> None:
    body = {"key": "k", "state": "Finished", "outcome": "StillRunning", "content": ""}
    found = _RecordBody.model_validate(body).found()
    assert found.finished and found.receipt.outcome == "StillRunning"
