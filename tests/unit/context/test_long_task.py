"""A task far longer than its model's window goes on, and finishes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ratchet.core.config import Limits
from ratchet.core.keys import canonical
from ratchet.core.records import EndOutcome, Turn
from ratchet.core.replies import FailureKind, ModelFailure, RawReply, Usage
from ratchet.fakes.model import Answer, calls
from ratchet.ports import ModelRequest

from tests.unit.context.conversation import alternate
from tests.unit.core.world import FINISHED, World, configured, virtual

WINDOW, TURNS = 16_384, 200
FILE = "".join(f"{n:>6}: x += {n}\n" for n in range(400))[:8192]
TOOLS = 6300
"""Bytes of a request besides its messages."""


class Reader:
    """A model that reads a file of 8 KiB again and again, with a window that is really one."""

    def __init__(self, tokens: Callable[[int], int], *, window: int, counts: bool) -> None:
        self.tokens, self.window, self.counts = tokens, window, counts
        self.refused = 0
        self.largest = 0

    def __call__(self, turn: int, messages: list[dict[str, Any]]) -> Answer:
        alternate(messages)
        prompt = self.tokens(len(canonical(messages).encode()) + TOOLS)
        if prompt + 50 > self.window:
            self.refused += 1
            return ModelFailure(FailureKind.CONTEXT, "It is longer than the context.", 400)
        self.largest = max(self.largest, prompt)
        return replace(self._reply(turn), usage=Usage(prompt, 0, 50) if self.counts else Usage())

    @staticmethod
    def _reply(turn: int) -> RawReply:
        if turn > TURNS:
            return FINISHED
        if turn == 1:
            return calls(("write_file", {"path": "a.py", "content": FILE}))
        return calls(("read_file", {"path": "a.py"}))


async def played(model: Reader) -> World:
    config = configured(model_context_window=model.window, limits=Limits(turns=TURNS + 50))
    world = World(play=model, config=config)
    await world.run_to_end(check=False)  # which replays each part of a journal, so its square
    return world


def bodies(world: World) -> list[str]:
    seen: list[ModelRequest] = world.model.seen
    return [request.body for request in seen]


def steps(world: World) -> int:
    """Requests that do not begin with the bytes of the one before."""
    return sum(
        not after.startswith(before[: before.rindex('],"model"')])
        for before, after in pairwise(bodies(world))
    )


@virtual
async def test_with_a_server_that_counts_no_request_is_refused() -> None:
    model = Reader(lambda size: size * 10 // 37, window=WINDOW, counts=True)
    world = await played(model)
    assert world.task.journal[-1].outcome is EndOutcome.SUCCEEDED  # type: ignore[union-attr]
    turns = [record for record in world.task.journal if isinstance(record, Turn)]
    assert len(turns) == len(bodies(world)) == TURNS + 1
    assert model.refused == 0
    assert WINDOW // 2 < model.largest <= WINDOW * 85 // 100
    goal = json.loads(bodies(world)[-1])["messages"][1]["content"]
    assert "of this task are no longer shown" in goal


@virtual
async def test_where_the_estimate_is_far_too_low_a_refusal_leaves_out_more() -> None:
    model = Reader(lambda size: size * 2 // 3, window=2 * WINDOW, counts=False)
    world = await played(model)
    assert world.task.journal[-1].outcome is EndOutcome.SUCCEEDED  # type: ignore[union-attr]
    turns = [record for record in world.task.journal if isinstance(record, Turn)]
    assert len(turns) == TURNS + 1
    assert 0 < model.refused < TURNS // 3
    assert len(bodies(world)) == TURNS + 1 + model.refused


@virtual
async def test_in_a_larger_window_most_requests_go_on_with_the_bytes_of_the_one_before() -> None:
    model = Reader(lambda size: size * 10 // 37, window=8 * WINDOW, counts=True)
    world = await played(model)
    assert model.refused == 0
    assert 1 <= steps(world) <= TURNS // 10
