"""The shapes of journals that are kept for later versions, each played on a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from ratchet.api import names
from ratchet.core.config import Rule
from ratchet.core.facts import CallOrder, Receipt
from ratchet.core.records import Outcome
from ratchet.core.replies import FailureKind, ModelFailure, RawCall, RawReply, Usage
from ratchet.fakes.model import calls, says
from ratchet.fakes.sandbox import FakePod, plain_tool

from tests.contract.journal_homes import ClusterHome
from tests.e2e.journals.play import BASH, FINISH, READ, WRITE, Play

WITHIN_S = 60.0
SHAPES: dict[str, Callable[[ClusterHome], Awaitable[Play]]] = {}


def shape(
    play: Callable[[ClusterHome], Awaitable[Play]],
) -> Callable[[ClusterHome], Awaitable[Play]]:
    SHAPES[play.__name__] = play
    return play


async def played(home: ClusterHome, name: str) -> Play:
    """Play one of the shapes to where it stops."""
    async with asyncio.timeout(WITHIN_S):
        play = await SHAPES[name](home)
        await asyncio.gather(*play.work)
        return play


async def to_the_end(play: Play) -> Play:
    state = await play.run()
    assert state is not None and state.concluded
    return play


@shape
async def plain(home: ClusterHome) -> Play:
    """A command, then finish; the patch is empty."""
    return await to_the_end(await Play.of(home, calls(BASH), calls(FINISH)))


@shape
async def several_calls_and_a_patch(home: ClusterHome) -> Play:
    """Several calls in a turn, one of which fails; text alone once; a patch with odd characters."""
    odd = ("write_file", {"path": "odd.txt", "content": 'é🙂\u2028"\\<>&\t\u0001'})
    look = ("read_file", {"path": "none.py"})
    plan = ("todo", {"action": "write", "todos": [{"id": "1", "content": "mend it"}]})
    answers = (
        calls(plan, WRITE, READ, text="I begin."),
        says("Let me think."),
        calls(look, BASH),
        calls(odd),
        calls(FINISH),
    )
    spec: dict[str, Any] = {
        "context": "The sum is in sum.py.",
        "files": [{"path": "sum.py", "content": "2\n"}],
    }
    return await to_the_end(await Play.of(home, *answers, **spec))


@shape
async def unknown_reported(home: ClusterHome) -> Play:
    """The shell is lost under a command; the model is told that nobody knows, and later calls wait."""
    play = await Play.of(home, calls(BASH, WRITE), calls(READ), calls(FINISH), tool_s=0.3)
    return await to_the_end(losing_the_shell(play))


@shape
async def unknown_repeated(home: ClusterHome) -> Play:
    """The same, and the task asks to repeat it: the second run is recorded first."""
    play = await Play.of(home, calls(BASH), calls(FINISH), tool_s=0.3, onUnknownOutcome="Retry")
    return await to_the_end(losing_the_shell(play))


def losing_the_shell(play: Play) -> Play:
    def lose(_: CallOrder) -> None:
        play.began = lambda _: None
        asyncio.get_running_loop().call_later(0.1, play.lose_shell)

    play.began = lose
    return play


@shape
async def sandbox_lost(home: ClusterHome) -> Play:
    """The pod is lost with its volumes between two turns of calls."""
    play = await Play.of(home, calls(WRITE), calls(BASH), calls(READ), calls(FINISH), tool_s=0.3)

    def lose(order: CallOrder) -> None:
        if order.tool == "bash":
            play.began = lambda _: None
            play.sandboxes.lose(play.task.uid, 1)

    play.began = lose
    return await to_the_end(play)


@shape
async def repaired(home: ClusterHome) -> Play:
    """Replies that cannot be used: arguments that are no JSON, a tool that is not there, nothing."""
    torn = RawReply("", "", (RawCall("bash", '{"command": '),), "length", Usage(10, 0, 1, 0), "m")
    bad = RawReply("", "hm", (RawCall("bash", '{"command": '),), "tool_calls", Usage(), "m")
    unknown = calls(("make_coffee", {}))
    nothing = RawReply("", "", (), "stop", Usage(), "m")
    spec: dict[str, Any] = {"retryPolicy": {"model": {"repairs": 5}}}
    answers = (torn, bad, unknown, nothing, calls(BASH), calls(FINISH))
    return await to_the_end(await Play.of(home, *answers, **spec))


@shape
async def cancelled(home: ClusterHome) -> Play:
    """Cancelled while the first of two calls runs."""
    play = await Play.of(home, calls(BASH, WRITE), calls(FINISH), tool_s=30.0)
    play.began = lambda _: play.do(play.cancel())
    return await to_the_end(play)


@shape
async def deadline(home: ClusterHome) -> Play:
    """The deadline passes while a call runs."""
    play = await Play.of(home, calls(BASH), calls(FINISH), tool_s=30.0, activeDeadlineSeconds=2)
    return await to_the_end(play)


@shape
async def large_results(home: ClusterHome) -> Play:
    """Results that together are larger than a record may be, and are cut."""
    line = "0123456789 <&> é\n"

    def much(pod: FakePod, order: CallOrder) -> Receipt:
        if order.tool != "bash":
            return plain_tool(pod, order)
        spill = ".ratchet/out/" + order.key.replace("/", "-")
        return Receipt(order.key, Outcome.OK, line * 6000, exit_code=0, spill=spill)

    play = await Play.of(home, calls(BASH, READ, BASH), calls(FINISH))
    play.sandboxes.tool = much
    return await to_the_end(play)


@shape
async def still_running(home: ClusterHome) -> Play:
    """A command that goes on after its soft timeout, and is waited for."""

    def slow(pod: FakePod, order: CallOrder) -> Receipt:
        receipt = plain_tool(pod, order)
        if order.tool != "bash":
            return receipt
        return replace(receipt, outcome=Outcome.STILL_RUNNING, content="so far", exit_code=None)

    wait = ("bash_output", {"wait": 10})
    play = await Play.of(home, calls(BASH, READ), calls(wait), calls(FINISH))
    play.sandboxes.tool = slow
    return await to_the_end(play)


@shape
async def routed(home: ClusterHome) -> Play:
    """Two endpoints with prices: a request that does not fit is asked again with less of the old
    output, and where the first one refuses its key the other one is asked. Constraints are told,
    and a rule denies a call."""
    price = {"inputPerMillion": "2", "outputPerMillion": "6"}
    backup = {"url": "http://backup/v1", "model": "m2", "contextWindow": 64_000, "price": price}
    await home.make(names.ENDPOINT_KIND, names.ENDPOINT_PLURAL, "backup", backup)
    rule = {"name": "no-kill", "when": 'tool == "bash_kill"', "action": "Deny", "message": "wait"}
    spec: dict[str, Any] = {
        "model": {"fallbacks": [{"name": "backup"}]},
        "constraints": ["Change nothing outside of sum.py."],
        "policy": {"rules": [rule]},
    }
    answers = (*[calls(BASH)] * 4, calls(READ), calls(("bash_kill", {})), calls(FINISH))
    play = await Play.of(home, *answers, **spec)
    play.rules = denied
    play.sandboxes.tool = lambda _pod, order: Receipt(order.key, Outcome.OK, "made\n" * 2000)

    def go_wrong(_: CallOrder) -> None:
        begun = len(play.sandboxes.effects)
        if begun == 4:
            play.model.failures = [ModelFailure(FailureKind.CONTEXT, "It does not fit.", 400)]
        if begun == 5:
            no_key = ModelFailure(FailureKind.CONFIGURATION, "The key is refused.", 401)
            play.model.down = {"default": no_key}

    play.began = go_wrong
    return await to_the_end(play)


async def denied(
    rules: tuple[Rule, ...], tool: str, _arguments: str, _calls: Mapping[str, int], _turn: int
) -> str | None:
    """What the rule of `routed` says."""
    (rule,) = rules
    return f"Denied by rule {rule.name}: {rule.message}." if tool == "bash_kill" else None


@shape
async def taken_over(home: ClusterHome) -> Play:
    """The first owner is lost while a call runs, the second while the model is asked."""
    play = await Play.of(home, calls(BASH), calls(WRITE, READ), calls(FINISH), tool_s=0.3)
    await play.run_until(call=1)
    play.sandboxes.tool_delay_s = 30.0
    await play.run_until(call=2)
    play.sandboxes.tool_delay_s = 0.0
    play.sandboxes.reveal_unknown(play.task.uid, 1)
    return await to_the_end(play)


@shape
async def still_open(home: ClusterHome) -> Play:
    """Not ended: the newest turn has no results, its call runs."""
    play = await Play.of(home, calls(WRITE), calls(BASH), calls(FINISH), tool_s=0.3)
    await play.run_until(call=2)
    return play
