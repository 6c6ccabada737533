"""The tasks of the matrix: what the model asks for, and what goes wrong in each undisturbed run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ratchet.core.config import Config, File, UnknownPolicy
from ratchet.core.facts import CallOrder
from ratchet.core.keys import call_key
from ratchet.core.replies import RawCall, RawReply, Usage
from ratchet.fakes.model import Answer, calls, says
from ratchet.fakes.sandbox import FakePod

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    CHANGE,
    FINISHED,
    READ,
    TASK,
    WRITE,
    World,
    configured,
    later,
)

FILE = File("sum.py", "1 - 1")
LOOK = configured(files=(FILE,))
MALFORMED = RawReply("", "", (RawCall("bash", "{"),), "tool_calls", Usage(5, 0, 1, 0))

Misfortune = Callable[[World], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """One task. `misfortunes` are part of it: they happen in the undisturbed run too."""

    answers: tuple[Answer, ...]
    misfortunes: tuple[Misfortune, ...] = ()
    config: Config = LOOK
    tool_s: float = 1.0
    start_s: float = 0.0
    """Seconds that a sandbox takes to start."""

    def world(self) -> World:
        """A new world with this task."""
        world = World(*self.answers, config=self.config, tool_s=self.tool_s)
        world.sandboxes.start_delay_s = self.start_s
        for misfortune in self.misfortunes:
            misfortune(world)
        return world


def in_call(turn: int, index: int, after_s: float, act: Callable[[World], None]) -> Misfortune:
    """So long after a call really began, whoever had it run."""

    def arrange(world: World) -> None:
        began = world.sandboxes.began

        def note(pod: FakePod, order: CallOrder) -> None:
            began(pod, order)
            if order.key == call_key(TASK.uid, turn, index):
                later(after_s, lambda: act(world))

        world.sandboxes.began = note

    return arrange


def owner_lost_asking(world: World) -> None:
    """While the model thinks about the first turn."""
    world.on("ask", BEFORE, lambda: later(0.5, world.kill))


def owner_lost_with_reply(world: World) -> None:
    """With the second reply recorded, and nothing of it begun."""
    world.on("append", AFTER, world.kill, skip=1)


def owner_lost_repeating(world: World) -> None:
    """With a re-run recorded and not begun."""
    world.on("record_rerun", AFTER, world.kill)


def owner_lost_between_sandboxes(world: World) -> None:
    """With the second sandbox named in the status and not made."""
    world.on("set_sandbox", AFTER, world.kill, skip=1)


def on_unknown(policy: UnknownPolicy) -> Config:
    """What is done with a `bash` of which nobody knows whether it happened."""
    return configured(files=(FILE,), on_unknown=policy)


THREE = (calls(BASH, READ, CHANGE), FINISHED)
LOSING = (calls(READ), calls(BASH, WRITE), calls(READ), FINISHED)
REPAIRED = (MALFORMED, says("I think that I am done."), calls(BASH), FINISHED)
SHELL_LOST = in_call(1, 0, 0.5, World.lose_shell)
POD_LOST = in_call(2, 0, 0.5, World.lose_pod)
CANCELLED = in_call(1, 0, 0.5, World.cancel)
OWNER_LOST = in_call(1, 0, 0.3, World.kill)
LONG_S = 200.0
"""Seconds of a call that is still under way whenever somebody cancels it."""

SHAPES = {
    "one-call": Shape((calls(BASH), FINISHED)),
    "three-calls": Shape(THREE, start_s=0.5),
    "unknown-report": Shape((calls(BASH, READ), FINISHED), (SHELL_LOST,)),
    "unknown-retry": Shape(
        (calls(BASH, READ), FINISHED), (SHELL_LOST,), on_unknown(UnknownPolicy.RETRY)
    ),
    "unknown-fail": Shape(
        (calls(BASH, READ), FINISHED), (SHELL_LOST,), on_unknown(UnknownPolicy.FAIL)
    ),
    "unknown-checked": Shape((calls(CHANGE, READ), FINISHED), (SHELL_LOST,)),
    "sandbox-lost": Shape(LOSING, (POD_LOST,)),
    "sandbox-lost-repeats": Shape((calls(READ), FINISHED), (in_call(1, 0, 0.5, World.lose_pod),)),
    "cancelled": Shape((calls(BASH, READ), FINISHED), (CANCELLED,), tool_s=LONG_S),
    "repaired": Shape(REPAIRED),
    "second-owner": Shape(THREE, (OWNER_LOST,)),
    "second-owner-asks": Shape((calls(BASH), FINISHED), (owner_lost_asking,), start_s=0.5),
    "second-owner-retries": Shape(
        (calls(BASH, READ), FINISHED), (SHELL_LOST, OWNER_LOST), on_unknown(UnknownPolicy.RETRY)
    ),
    "second-owner-repeats": Shape(
        (calls(BASH, READ), FINISHED),
        (SHELL_LOST, owner_lost_repeating),
        on_unknown(UnknownPolicy.RETRY),
    ),
    "second-owner-cancels": Shape(
        (calls(BASH, READ), FINISHED), (CANCELLED, OWNER_LOST), tool_s=LONG_S
    ),
    "second-owner-finishes": Shape((calls(BASH), FINISHED), (owner_lost_with_reply,)),
    "second-owner-in-second-sandbox": Shape(LOSING, (POD_LOST, owner_lost_between_sandboxes)),
}
