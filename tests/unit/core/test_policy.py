"""Backoff, and what unknown means for each class and policy."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.core.config import UnknownPolicy
from ratchet.core.facts import Receipt
from ratchet.core.policy import Look, backoff, resolve_look, resolve_unknown
from ratchet.core.records import Call, Outcome, Reply, Rerun, Result, Turn, Verdict

from tests.unit.core.world import configured

ARGUMENTS = '{"path":"sum.py"}'


def turn_with(tool: str, reruns: int = 0) -> Turn:
    call = Call(0, "id", tool, ARGUMENTS)
    done = tuple(Rerun(0, f"u/1/0/r{k + 1}", "", 1) for k in range(reruns))
    return Turn(1, 1, 1, "", "", "", Reply(Verdict.CALLS, calls=(call,)), done)


def resolved(
    tool: str, policy: UnknownPolicy, *, kept: bool, before: str = "", reruns: int = 0
) -> Result | Rerun | Look:
    turn = turn_with(tool, reruns)
    receipt = Receipt("u/1/0", Outcome.UNKNOWN, before=before)
    return resolve_unknown(
        configured(on_unknown=policy), turn, turn.reply.calls[0], receipt,
        task_uid="u", next_generation=2, workspace_kept=kept,
    )  # fmt: skip


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_bounds(failures: int, jitter: float) -> None:
    pause = backoff(failures, jitter)
    assert timedelta(seconds=0.5) <= pause <= timedelta(seconds=60)
    assert backoff(failures + 1, jitter) >= pause


@pytest.mark.parametrize("tool", ["read_file", "grep", "write_file"])
@pytest.mark.parametrize("policy", UnknownPolicy)
@pytest.mark.parametrize("kept", [True, False])
def test_harmless_calls_are_repeated_whatever_the_policy(
    tool: str, policy: UnknownPolicy, kept: bool
) -> None:
    found = resolved(tool, policy, kept=kept)
    assert isinstance(found, Rerun)
    assert (found.key, found.generation) == ("u/1/0/r1", 2)


@pytest.mark.parametrize("policy", [UnknownPolicy.REPORT, UnknownPolicy.FAIL])
@pytest.mark.parametrize(
    ("tool", "kept"), [("bash", True), ("bash", False), ("search_replace", False)]
)
def test_what_cannot_be_seen_is_reported_unless_retry_is_asked_for(
    tool: str, policy: UnknownPolicy, kept: bool
) -> None:
    found = resolved(tool, policy, kept=kept, before="sha256:a")
    assert isinstance(found, Result) and found.outcome is Outcome.UNKNOWN
    assert isinstance(resolved(tool, UnknownPolicy.RETRY, kept=kept), Rerun)


@pytest.mark.parametrize("policy", UnknownPolicy)
def test_a_change_in_a_workspace_that_is_there_is_looked_at(policy: UnknownPolicy) -> None:
    found = resolved("search_replace", policy, kept=True, before="sha256:a")
    assert found == Look("u/1/0", "sum.py", "sha256:a")


def test_a_change_of_which_the_file_is_not_known_is_reported() -> None:
    assert isinstance(resolved("search_replace", UnknownPolicy.REPORT, kept=True), Result)


def test_reruns_are_numbered_and_end() -> None:
    second = resolved("grep", UnknownPolicy.REPORT, kept=True, reruns=1)
    assert isinstance(second, Rerun) and second.key == "u/1/0/r2"
    assert isinstance(resolved("grep", UnknownPolicy.REPORT, kept=True, reruns=3), Result)


def test_an_unchanged_file_means_again_and_a_changed_one_means_done() -> None:
    look = Look("u/1/0", "sum.py", "sha256:a")
    for reruns, same, kind in ((0, True, Rerun), (0, False, Result), (3, True, Result)):
        turn = turn_with("search_replace", reruns)
        found = resolve_look(turn, turn.reply.calls[0], look, same, task_uid="u", generation=1)
        assert isinstance(found, kind)
