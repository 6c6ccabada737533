"""The simulation notices: each of these faults, put in on purpose, is found within a few seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from ratchet.core import commands as c
from ratchet.core import loop, policy
from ratchet.core.evolve import calls, journal
from ratchet.core.records import End, Outcome, Turn
from ratchet.core.state import State
from ratchet.core.tools import CATALOGUE, Effect
from ratchet.fakes.journal import FakeJournal
from ratchet.shell.runner import Runner

from tests.property.scenario import Scenario

WITHIN = 150
"""Seeds."""


def tools_run_before_the_reply_is_recorded(patch: pytest.MonkeyPatch) -> None:
    run_calls = loop._run_calls

    def too_early(state: State) -> Iterator[c.Command]:
        for wish in loop._record(state):
            if isinstance(wish, c.StoreTurn):
                yield from run_calls(journal.turn_stored(state, wish.turn))
        yield from run_calls(state)

    patch.setattr(loop, "_run_calls", too_early)


def records_are_overwritten(patch: pytest.MonkeyPatch) -> None:
    async def append(self: FakeJournal, record: Turn | End) -> tuple[Turn | End, bool]:
        self._found().records[record.number] = record
        return record, True

    patch.setattr(FakeJournal, "append", append)


def every_call_is_repeated(patch: pytest.MonkeyPatch) -> None:
    pure = {name: replace(tool, effect=Effect.PURE) for name, tool in CATALOGUE.items()}
    patch.setattr(policy, "CATALOGUE", pure)


def unknown_is_taken_for_done(patch: pytest.MonkeyPatch) -> None:
    known = calls._outcome

    def hopeful(receipt: object) -> Outcome:
        found = known(receipt)  # type: ignore[arg-type]
        return Outcome.OK if found is Outcome.UNKNOWN else found

    patch.setattr(calls, "_outcome", hopeful)


def attempts_share_an_id(patch: pytest.MonkeyPatch) -> None:
    def forget(self: Runner, wishes: tuple[c.Command, ...]) -> bool:
        for command, task in list(self._under_way.items()):
            if command.interruptible and command not in wishes:
                del self._under_way[command]
                self._drop(task)
        return False

    patch.setattr(Runner, "_withdraw", forget)


MUTANTS = [
    tools_run_before_the_reply_is_recorded,
    records_are_overwritten,
    every_call_is_repeated,
    unknown_is_taken_for_done,
    attempts_share_an_id,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_simulation_notices(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match="seed"):
        run_all()


def run_all() -> None:
    for seed in range(WITHIN):
        Scenario(seed).run()
