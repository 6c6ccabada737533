"""The matrix: a diagonal of it is played, and an operator that is broken on purpose is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from ratchet.core import commands as c
from ratchet.core import loop, policy
from ratchet.core.evolve import journal
from ratchet.core.state import State
from ratchet.core.tools import CATALOGUE, Effect
from ratchet.failpoints import Fault, Point
from ratchet.fakes.journal import FakeJournal, StoredTask

from tests.proof import matrix
from tests.proof.matrix import Case, Result, failure, play_case, run_case
from tests.proof.matrix_play import undisturbed
from tests.proof.matrix_shapes import SHAPES
from tests.proof.rows import total

pytestmark = pytest.mark.timeout(300)  # seconds of a busy machine; some 5 on two free cores


def diagonal() -> Iterator[Case]:
    """Each point with each fault once; the shapes and passings take turns."""
    for number, (point, fault) in enumerate((p, f) for p in Point for f in Fault):
        strikes = (point, fault)
        fitting = [x for x in matrix.cases() if (x.strike.point, x.strike.fault) == strikes]
        yield fitting[number % len(fitting)]


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return [play_case(case) for case in diagonal()]


def test_whatever_fault_strikes_wherever_nothing_is_repeated_or_lost(results: list[Result]) -> None:
    assert not [failure(result) for result in results if result.findings.broken]


def test_there_is_a_row_for_each_point(results: list[Result]) -> None:
    rows = matrix.rows(results)
    assert [row.fault for row in rows] == [str(point) for point in Point]
    assert {row.runs for row in rows} == {len(Fault)}
    assert not total(rows).broken


def test_a_point_that_never_struck_is_an_error(results: list[Result]) -> None:
    rest = [r for r in results if (r.case.strike.point, r.case.strike.fault) != ("ask", "twice")]
    found = total(matrix.rows(rest))
    assert found.broken and found.remarks == ("ask: twice never struck",)


def test_the_matrix_is_of_the_size_that_is_said_of_it() -> None:
    assert len(matrix.cases()) > 3000
    assert {case.shape for case in matrix.cases()} == set(SHAPES)


def test_a_case_is_found_by_its_name() -> None:
    for case in matrix.cases()[::500]:
        assert Case.of(str(case)) == case
    with pytest.raises(ValueError, match="there is no shape 'none'; there are one-call"):
        Case.of("none/run/error/1")


def test_a_case_that_never_strikes_is_an_error() -> None:
    found = run_case(Case.of("one-call/run/error/9"))
    assert found.stuck == 1 and found.remarks == ("the fault never struck",)


# --- operators that are broken on purpose --------------------------------------------------------


def tools_run_before_the_reply_is_recorded(patch: pytest.MonkeyPatch) -> None:
    run_calls = loop._run_calls

    def too_early(state: State) -> Iterator[c.Command]:
        for wish in loop._record(state):
            if isinstance(wish, c.StoreTurn):
                yield from run_calls(journal.turn_stored(state, wish.turn))
        yield from run_calls(state)

    patch.setattr(loop, "_run_calls", too_early)


def every_call_is_repeated(patch: pytest.MonkeyPatch) -> None:
    pure = {name: replace(tool, effect=Effect.PURE) for name, tool in CATALOGUE.items()}
    patch.setattr(policy, "CATALOGUE", pure)


def nobody_asks_for_the_epoch(patch: pytest.MonkeyPatch) -> None:
    def any_owner(self: FakeJournal) -> StoredTask:
        return self._found()

    patch.setattr(FakeJournal, "_ours", any_owner)


def a_request_goes_beside_its_mark(patch: pytest.MonkeyPatch) -> None:
    ask = loop._ask

    def beside(*given: object) -> Iterator[c.Command]:
        for wish in ask(*given):  # type: ignore[arg-type]
            yield wish
            state = given[0]
            if isinstance(wish, c.MarkAsking) and isinstance(state, State) and state.request:
                wanted = state.request
                yield c.Ask(wanted.turn, state.attempt, wanted.digest, wanted)

    patch.setattr(loop, "_ask", beside)


def an_unknown_outcome_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loop, "_recorded_unknown", lambda _state, _turn: None)


Mutant = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[Mutant, tuple[str, str]] = {
    tools_run_before_the_reply_is_recorded: ("unknown-report/append-turn/stall-before/1", "lost"),
    every_call_is_repeated: ("unknown-report/run/kill-after/1", "repeated"),
    nobody_asks_for_the_epoch: ("one-call/claim/stall-after/1", "stuck"),
    a_request_goes_beside_its_mark: ("one-call/claim/stall-after/1", "uncounted"),
    an_unknown_outcome_is_forgotten: ("unknown-fail/record-results/kill-after/1", "holes"),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_matrix_notices(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    case, kind = MUTANTS[mutant]
    assert not run_case(Case.of(case)).broken
    mutant(monkeypatch)
    undisturbed.cache_clear()
    try:
        assert getattr(run_case(Case.of(case)), kind) > 0
    finally:
        undisturbed.cache_clear()
