"""Nothing that a model or a tool says makes a record too large to be stored."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from ratchet.core.facts import CallOrder, Receipt
from ratchet.core.records import (
    MAX_RECORD,
    MAX_RESULTS,
    MIN_RESULTS,
    Outcome,
    Reply,
    Result,
    Turn,
    Verdict,
    with_results,
)
from ratchet.core.sizes import cut_to_store, share_out, stored_size
from ratchet.fakes.model import calls
from ratchet.fakes.sandbox import FakePod

from tests.unit.core.world import BASH, FINISHED, World, virtual

LINES = "a line of output\n"


def turn(reply: Reply | None = None) -> Turn:
    return Turn(1, 1, 1, "l", "p", "d", reply or Reply(Verdict.CALLS))


def results(*contents: str, spill: str = "") -> tuple[Result, ...]:
    return tuple(
        Result(index, f"u/1/{index}", Outcome.OK, content, spill=spill)
        for index, content in enumerate(contents)
    )


def sizes(stored: Turn) -> list[int]:
    return [stored_size(result.content) for result in stored.results or ()]


def test_results_that_fit_stay_as_they_are() -> None:
    given = results("short", LINES * 4000)
    assert with_results(turn(), given).results == given


def test_the_results_of_a_turn_stay_within_their_bound() -> None:
    stored = with_results(turn(), results(*[LINES * 6000] * 32))
    assert sum(sizes(stored)) <= MAX_RESULTS
    assert all(result.truncated for result in stored.results or ())


def test_a_small_result_is_kept_whole_and_the_large_ones_share_the_rest() -> None:
    stored = with_results(turn(), results(LINES * 6000, "small", LINES * 6000))
    first, small, last = stored.results or ()
    assert small.content == "small" and not small.truncated
    assert stored_size(first.content) > 0.45 * MAX_RESULTS
    assert first.content == last.content


def test_what_escapes_make_long_counts_as_long() -> None:
    stored = with_results(turn(), results("\0" * 100_000, "<" * 100_000, '"' * 100_000))
    assert sum(sizes(stored)) <= MAX_RESULTS


def test_a_large_reply_leaves_less_room() -> None:
    reply = Reply(Verdict.CALLS, text="t" * 48_000, reasoning="r" * 48_000)
    stored = with_results(turn(reply), results(LINES * 6000, LINES * 6000))
    assert MIN_RESULTS < sum(sizes(stored)) <= MAX_RECORD - 96_000


def test_the_whole_output_is_named_where_there_is_a_file_with_it() -> None:
    stored = with_results(turn(), results(LINES * 9000, LINES * 9000, spill=".ratchet/out/1"))
    assert all(".ratchet/out/1" in result.content for result in stored.results or ())


def test_cutting_again_changes_nothing() -> None:
    once = with_results(turn(), results(LINES * 6000, "\n" * 50_000, LINES * 6000))
    assert with_results(turn(), once.results or ()) == once


@given(st.text(), st.integers(100, 400))
def test_a_text_is_cut_to_what_it_takes_when_it_is_stored(text: str, limit: int) -> None:
    assert stored_size(cut_to_store(text * 20, limit)) <= limit


@given(st.text())
def test_the_stored_size_is_not_below_that_of_json(text: str) -> None:
    assert stored_size(text) >= len(json.dumps(text, ensure_ascii=False).encode()) - 2


@given(st.lists(st.integers(0, 1000), max_size=32), st.integers(0, 5000))
def test_shares_are_within_the_budget_and_never_more_than_wanted(
    wanted: list[int], budget: int
) -> None:
    shares = share_out(wanted, budget)
    assert sum(shares) <= budget
    assert all(share <= size for share, size in zip(shares, wanted, strict=True))


@virtual
async def test_a_turn_with_much_output_is_recorded_as_the_model_was_shown_it() -> None:
    def loud(_pod: FakePod, order: CallOrder) -> Receipt:
        return Receipt(order.key, Outcome.OK, LINES * 6000)

    world = World(calls(*[BASH] * 32), FINISHED, tool_s=0.01)
    world.sandboxes.tool = loud
    state = await world.run_to_end()
    assert sum(sizes(world.turns[0])) <= MAX_RESULTS
    assert state.lost_requests == 0
