"""Stories of tasks, word for word. After a change that is meant: `pytest tests/golden --rewrite-golden`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ratchet.core.config import UnknownPolicy
from ratchet.fakes.clock import run
from ratchet.fakes.model import calls, says

from tests.conftest import AssertGolden
from tests.golden.story import Story
from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    BROKEN,
    BUSY,
    FINISH,
    FINISHED,
    READ,
    WRITE,
    World,
    configured,
    later,
)

FOLDER = Path(__file__).parent
STORIES: dict[str, tuple[str, Callable[[], World]]] = {}


def story(title: str) -> Callable[[Callable[[], World]], Callable[[], World]]:
    def keep(make: Callable[[], World]) -> Callable[[], World]:
        STORIES[make.__name__] = title, make
        return make

    return keep


@story("A plain task: a command, a file, the end.")
def plain() -> World:
    return World(calls(BASH), calls(WRITE), FINISHED)


@story("Several calls in one reply, the end among them, after a reply that was text alone.")
def several_calls() -> World:
    todo = ("todo", {"action": "write", "todos": [{"id": "1", "content": "mend"}]})
    return World(says("Let me think."), calls(todo, WRITE, READ, FINISH))


@story("The operator is killed when the model has answered and nothing is recorded.")
def killed_before_the_reply_is_recorded() -> World:
    world = World(calls(BASH), FINISHED)
    world.on("append", BEFORE, world.kill)
    return world


@story("The operator is killed when the reply is recorded, before its calls are sent.")
def killed_after_the_reply_is_recorded() -> World:
    world = World(calls(BASH, WRITE), FINISHED)
    world.on("append", AFTER, world.kill)
    return world


@story("The operator is killed while a command runs. The next one waits for the same command.")
def killed_during_a_call() -> World:
    world = World(calls(BASH, WRITE), FINISHED, tool_s=5)
    world.on("run", BEFORE, lambda: later(2, world.kill))
    return world


@story("The shell is lost while a command runs. The model is told that nobody knows.")
def unknown_is_reported() -> World:
    world = World(calls(BASH, WRITE), calls(READ), FINISHED)
    world.on("run", BEFORE, lambda: later(0.3, world.lose_shell))
    return world


@story("The shell is lost while a command runs, and the task asks to repeat it.")
def unknown_is_repeated() -> World:
    world = World(calls(BASH), FINISHED, config=configured(on_unknown=UnknownPolicy.RETRY))
    world.on("run", BEFORE, lambda: later(0.3, world.lose_shell))
    return world


@story("The pod and its volumes are lost while a command runs.")
def pod_lost() -> World:
    world = World(calls(BASH), calls(WRITE), FINISHED)
    world.on("run", BEFORE, lambda: later(0.5, world.lose_pod))
    return world


@story("The task is cancelled while a command runs.")
def cancelled_in_a_call() -> World:
    world = World(calls(BASH, WRITE), FINISHED, tool_s=60)
    world.on("run", BEFORE, lambda: later(3, world.cancel))
    return world


@story("The API server is away for 20 s while a command runs.")
def api_server_away() -> World:
    world = World(calls(BASH), FINISHED, tool_s=3)
    world.on("run", BEFORE, lambda: later(1, lambda: world.api_away(20)))
    return world


@story("The model is overloaded, then unreachable once, then fine.")
def model_overloaded() -> World:
    world = World(FINISHED)
    world.model.failures = [BUSY, BUSY, BROKEN]
    return world


@pytest.mark.parametrize("name", STORIES)
def test_the_story_is_as_it_was(name: str, assert_golden: AssertGolden) -> None:
    title, make = STORIES[name]

    async def play() -> str:
        world = make()
        told = Story(world)
        await world.run_to_end()
        return told.text(title)

    text = run(play())
    file = FOLDER / f"{name}.txt"
    assert_golden(file, text)


def test_every_file_has_its_story() -> None:
    assert {file.stem for file in FOLDER.glob("*.txt")} == set(STORIES)
