"""The next request is on its way while results are recorded: its answer must be to what is stored."""

from __future__ import annotations

from dataclasses import replace

from ratchet.core import commands as c
from ratchet.core import events as e
from ratchet.core.evolve import begin, evolve
from ratchet.core.facts import Receipt, SandboxRef
from ratchet.core.keys import call_key
from ratchet.core.loop import decide
from ratchet.core.records import (
    Call,
    Outcome,
    Reply,
    Start,
    Turn,
    Verdict,
    start_hash,
    with_results,
)
from ratchet.core.state import State
from ratchet.fakes.clock import BEGIN

from tests.unit.core.world import CONFIG, TASK

START = Start(CONFIG, 1, start_hash(CONFIG.to_json()))
CALL = Call(0, "abcdefghi", "bash", '{"command":"make"}')
OPEN = Turn(1, 1, 1, "ledger", START.hash, "sha256:0", Reply(Verdict.CALLS, calls=(CALL,)))
ANSWER = Reply(Verdict.TEXT, "I have seen that it works.")
MINE = Receipt(call_key(TASK.uid, 1, 0), Outcome.OK, "it works")


def with_an_early_answer() -> State:
    """A call has ended well, and the model has answered to that; nothing of it is recorded."""
    state = begin(
        task_uid=TASK.uid, epoch=1, started=BEGIN, deadline=None, cancelled=False, asking=None,
        lost_requests=0, sandbox=SandboxRef(1, "ledger"), records=(START, OPEN),
    )  # fmt: skip
    state = evolve(state, e.SandboxAnswered(SandboxRef(1, "ledger")))
    state = evolve(state, e.CallEnded(MINE))
    assert state.request is not None
    return evolve(state, e.Replied(2, state.request.digest, ANSWER))


def test_an_early_answer_is_recorded_after_the_results_that_it_answers() -> None:
    state = with_an_early_answer()
    state = evolve(state, e.ResultsStored(with_results(OPEN, state.known)))
    (stored,) = [wish for wish in decide(state, BEGIN) if isinstance(wish, c.StoreTurn)]
    assert stored.turn.reply == ANSWER


def test_an_early_answer_is_lost_where_other_results_are_stored() -> None:
    state = with_an_early_answer()
    (mine,) = state.known
    theirs = replace(mine, outcome=Outcome.UNKNOWN, content="nobody knows")
    state = evolve(state, e.ResultsStored(with_results(OPEN, (theirs,))))
    assert state.answer is None and state.lost_requests == 1
    wishes = decide(state, BEGIN)
    assert not [wish for wish in wishes if isinstance(wish, c.StoreTurn)]
    assert [wish for wish in wishes if isinstance(wish, c.Admit)], "it is asked again"
