"""The log is one line of JSON an event, and says nothing of what the model or the tools said."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.evolve import begin, evolve
from ratchet.core.facts import SandboxRef
from ratchet.core.records import Call, Reply, Start, Turn, Verdict
from ratchet.core.replies import FailureKind, ModelFailure
from ratchet.observe.log import JsonFormatter, listener
from ratchet.ports import TaskRef

CONFIG = Config("g", ModelConfig("default", "http://m/v1", "m"), SandboxConfig("debian"))
TASK = TaskRef("work", "mend", "11111111-2222-3333-4444-555555555555")
STATE = begin(
    task_uid=TASK.uid,
    epoch=3,
    started=datetime(2030, 1, 1, tzinfo=UTC),
    deadline=None,
    cancelled=False,
    asking=None,
    lost_requests=0,
    sandbox=SandboxRef(),
    records=[Start(CONFIG, 1)],
)
CALL = Call(0, "abc", "bash", '{"command":"cat secret"}')
TURN = Turn(1, 3, 1, "l", "p", "d", Reply(Verdict.CALLS, "private words", calls=(CALL,)))


def _logged(event: e.Event, caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    with caplog.at_level(logging.INFO):
        listener(TASK)(event, evolve(STATE, event))
    (record,) = caplog.records
    line: dict[str, object] = json.loads(JsonFormatter().format(record))
    return line


def test_a_turn_is_told_by_its_verdict_and_tools_and_not_by_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = _logged(e.TurnStored(TURN), caplog)
    assert line["event"] == "TurnStored"
    assert (line["task"], line["turn"], line["tools"]) == ("work/mend", 1, ["bash"])
    assert "secret" not in json.dumps(line) and "private" not in json.dumps(line)


def test_a_message_is_a_field_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    event = e.SandboxWaited(Reason.SANDBOX_STARTING, "soon", datetime(2030, 1, 1, tzinfo=UTC))
    assert _logged(event, caplog)["message"] == "soon"


def test_a_sandbox_that_still_waits_for_the_same_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = STATE
    with caplog.at_level(logging.INFO):
        for second in range(5):
            at = datetime(2030, 1, 1, second=second, tzinfo=UTC)
            event = e.SandboxWaited(Reason.SANDBOX_STARTING, "soon", at)
            state = evolve(state, event)
            listener(TASK)(event, state)
            state = evolve(state, e.SandboxChanged())
    assert len(caplog.records) == 1


def _failures(kinds: list[FailureKind], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged of these failures of one request, one after another."""
    state = evolve(STATE, e.Admitted(1, 1, 0))
    with caplog.at_level(logging.INFO):
        for second, kind in enumerate(kinds):
            at = datetime(2030, 1, 1, second=second, tzinfo=UTC)
            failure = ModelFailure(kind, f"It said {kind}.")
            event = e.AskFailed(1, state.attempt, failure, at, 0.5)
            state = evolve(state, event)
            listener(TASK)(event, state)
    return [json.loads(JsonFormatter().format(record))["message"] for record in caplog.records]


def test_an_outage_is_a_line_and_not_one_for_each_try(caplog: pytest.LogCaptureFixture) -> None:
    assert _failures([FailureKind.WAIT] * 20, caplog) == ["It said Wait."]


def test_another_failure_and_the_last_one_are_lines_of_their_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    retry, wait = FailureKind.RETRY, FailureKind.WAIT
    logged = _failures([wait, wait, retry, retry, retry], caplog)
    assert logged == ["It said Wait.", "It said Retry.", "It said Retry."]


def test_an_endpoint_that_is_away_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    state, until = STATE, datetime(2030, 1, 2, tzinfo=UTC)
    with caplog.at_level(logging.INFO):
        for second in range(5):
            at = datetime(2030, 1, 1, second=second, tzinfo=UTC)
            event = e.EndpointAway(0, f"open for {60 - second} s", until, at)
            state = evolve(state, event)
            listener(TASK)(event, state)
    (record,) = caplog.records
    assert json.loads(JsonFormatter().format(record))["endpoint"] == "default"
