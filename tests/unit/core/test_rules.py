"""Rules of a task are asked before a call runs, and only what cannot have run is denied."""

from __future__ import annotations

from collections.abc import Mapping

from ratchet.core.config import Config, Rule, RuleAction
from ratchet.core.records import Outcome
from ratchet.fakes.model import calls
from ratchet.ports import JournalAway, SandboxAway

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    FINISHED,
    READ,
    WRITE,
    World,
    configured,
    later,
    virtual,
)

NO_BASH = Rule("no-bash", 'tool == "bash"', RuleAction.DENY, "use the file tools")
RULED = configured(rules=(NO_BASH,))
SENTENCE = "Denied by rule no-bash: use the file tools."


class Asked:
    """A RuleCheck that denies some tools, and remembers what it was asked."""

    def __init__(self, *denied: str) -> None:
        self.denied = set(denied)
        self.seen: list[tuple[str, dict[str, int], int]] = []

    async def __call__(
        self,
        rules: tuple[Rule, ...],
        tool: str,
        arguments: str,
        calls: Mapping[str, int],
        turn: int,
    ) -> str | None:
        assert rules == (NO_BASH,) and arguments.startswith("{")
        self.seen.append((tool, dict(calls), turn))
        return SENTENCE if tool in self.denied else None


def ruled(*answers: object, asked: Asked, config: Config = RULED, tool_s: float = 1.0) -> World:
    world = World(*answers, config=config, tool_s=tool_s)  # type: ignore[arg-type]
    world.denies = asked
    return world


@virtual
async def test_a_call_that_a_rule_denies_is_not_run_and_the_model_is_told() -> None:
    world = ruled(calls(BASH, WRITE), FINISHED, asked=Asked("bash"))
    await world.run_to_end()
    assert world.effects == []
    assert world.outcomes(1) == [Outcome.DENIED, Outcome.NOT_RUN]
    assert world.result(1, 0).content == SENTENCE
    assert SENTENCE in world.asked()[1]


@virtual
async def test_rules_are_told_how_often_each_tool_was_called_before() -> None:
    asked = Asked()
    world = ruled(calls(BASH, READ), calls(BASH), FINISHED, asked=asked)
    await world.run_to_end()
    assert asked.seen == [
        ("bash", {}, 1),
        ("read_file", {"bash": 1}, 1),
        ("bash", {"bash": 1, "read_file": 1}, 2),
    ]


@virtual
async def test_finish_and_todo_are_not_subject_to_rules() -> None:
    asked = Asked("finish", "todo", "bash")
    todo = ("todo", {"action": "write", "todos": [{"id": "1", "content": "mend"}]})
    world = ruled(calls(todo), FINISHED, asked=asked)
    await world.run_to_end()
    assert world.end.outcome == "Succeeded" and asked.seen == []


@virtual
async def test_a_task_without_rules_asks_nobody() -> None:
    asked = Asked("bash")
    world = ruled(calls(BASH), FINISHED, asked=asked, config=configured())
    await world.run_to_end()
    assert asked.seen == [] and world.ran("bash") == 1


@virtual
async def test_what_was_allowed_once_is_not_denied_when_it_is_asked_for_again() -> None:
    asked = Asked()
    world = ruled(calls(BASH), FINISHED, asked=asked, tool_s=5)

    def change_mind() -> None:
        asked.denied.add("bash")
        raise SandboxAway("no answer")

    world.on("run", AFTER, change_mind)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.OK] and world.ran("bash") == 1


@virtual
async def test_a_call_that_an_owner_before_us_sent_is_not_denied_as_if_it_had_never_run() -> None:
    asked = Asked()
    world = ruled(calls(BASH), FINISHED, asked=asked, tool_s=1)
    world.on("record_results", BEFORE, world.kill)
    world.on("record_results", BEFORE, lambda: asked.denied.add("bash"))
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.OK] and world.ran("bash") == 1


@virtual
async def test_a_call_that_an_owner_before_us_did_not_send_is_denied() -> None:
    asked = Asked("bash")
    world = ruled(calls(BASH), FINISHED, asked=asked)
    world.on("append", AFTER, world.kill)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.DENIED] and world.effects == []


@virtual
async def test_a_denied_call_is_recorded_although_the_api_server_is_away_for_a_while() -> None:
    world = ruled(calls(BASH), FINISHED, asked=Asked("bash"))
    world.on("record_results", BEFORE, JournalAway("no answer"), times=3)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.DENIED]


@virtual
async def test_a_cancel_does_not_wait_for_a_rule() -> None:
    world = ruled(calls(BASH), FINISHED, asked=Asked())

    class Slow(Asked):
        async def __call__(self, *args: object) -> str | None:
            later(1, world.cancel)
            import asyncio

            await asyncio.sleep(3600)
            return None

    world.denies = Slow()
    await world.run_to_end()
    assert world.now < 60 and world.effects == []
