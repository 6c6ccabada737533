"""The model's list is a fold over its own calls."""

from __future__ import annotations

from ratchet.core.records import Outcome
from ratchet.fakes.model import calls

from tests.unit.core.world import BASH, FINISHED, World, virtual

WRITE = (
    "todo",
    {"action": "write", "todos": [{"id": "a", "content": "mend", "status": "completed"}]},
)
READ = ("todo", {"action": "read"})


@virtual
async def test_what_was_written_is_read_in_the_same_turn_and_later() -> None:
    world = World(calls(READ, WRITE, READ), calls(READ), FINISHED)
    await world.run_to_end()
    assert world.result(1, 0).content == "The list is empty."
    assert world.result(1, 2).content == "[completed] a: mend (medium)"
    assert world.result(2, 0).content == world.result(1, 2).content
    assert world.effects == []


@virtual
async def test_an_id_that_occurs_twice_changes_nothing() -> None:
    entry = {"id": "a", "content": "x"}
    twice = ("todo", {"action": "write", "todos": [entry, entry]})
    world = World(calls(WRITE, twice, READ), FINISHED)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.OK, Outcome.FAILED, Outcome.OK]
    assert "mend" in world.result(1, 2).content


@virtual
async def test_a_todo_waits_for_the_calls_before_it() -> None:
    world = World(calls(BASH, WRITE), FINISHED)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.OK, Outcome.OK]
