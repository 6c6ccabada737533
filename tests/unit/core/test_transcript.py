"""Prompts grow at their end only, and every stored byte counts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from ratchet.core.config import File
from ratchet.core.records import Outcome, Reply, Result, Turn, Verdict
from ratchet.core.transcript import NUDGE, SANDBOX_LOST, Request, messages, render, request
from ratchet.fakes.model import calls, says, strict

from tests.unit.core.world import (
    AFTER,
    BASH,
    FINISHED,
    READ,
    WRITE,
    World,
    configured,
    later,
    virtual,
)


def opening(body: str) -> str:
    """The body up to the end of its messages."""
    return body[: body.index('],"model"')]


async def journal_of(world: World) -> list[Turn]:
    await world.run_to_end()
    return world.turns


def requests(world: World) -> list[Request]:
    turns = tuple(world.turns)
    return [request(world.task.config, turns[:n], 1) for n in range(len(turns) + 1)]


@virtual
async def test_each_request_begins_with_the_bytes_of_the_one_before() -> None:
    world = World(calls(BASH, WRITE, text="Let me see."), says("hm"), calls(READ), FINISHED)
    await world.run_to_end()
    bodies = [r.body for r in requests(world)]
    assert len(bodies) == 5
    for before, after in pairwise(bodies):
        assert after.startswith(opening(before) + ",")
        assert after[len(opening(after)) :] == before[len(opening(before)) :]


@virtual
async def test_a_lost_sandbox_is_told_where_it_was_lost_and_stays_there() -> None:
    world = World(calls(READ), calls(BASH), calls(READ), FINISHED)
    world.on("append", AFTER, lambda: later(0.5, world.lose_pod), skip=1)
    await world.run_to_end()
    sent = [opening(body) for body in world.asked()]
    with_news = [body for body in sent if SANDBOX_LOST in body]
    assert all(after.startswith(before) for before, after in pairwise(with_news))
    assert all(body.count(SANDBOX_LOST) == 1 for body in with_news) and len(with_news) == 2


@virtual
async def test_the_digest_changes_with_any_stored_byte() -> None:
    world = World(calls(BASH, text="Let me see."), FINISHED)
    (turn, *_) = await journal_of(world)
    assert turn.results is not None
    call, result = turn.reply.calls[0], turn.results[0]
    config = world.task.config
    before = request(config, (turn,), 1).digest
    others = [
        replace(turn, reply=replace(turn.reply, text="Let me see!")),
        replace(turn, reply=replace(turn.reply, calls=(replace(call, tool="grep"),))),
        replace(turn, reply=replace(turn.reply, calls=(replace(call, arguments="{}"),))),
        replace(turn, results=(replace(result, content=result.content + " "),)),
    ]
    digests = {request(config, (other,), 1).digest for other in others}
    digests |= {request(config, (turn,), 2).digest}
    digests |= {request(replace(config, goal="Mend it."), (turn,), 1).digest}
    assert before not in digests and len(digests) == 6


@virtual
async def test_what_the_model_was_not_shown_does_not_change_the_digest() -> None:
    world = World(calls(BASH), FINISHED)
    (turn, *_) = await journal_of(world)
    other = replace(turn, epoch=9, reply=replace(turn.reply, reasoning="hm"))
    config = world.task.config
    assert request(config, (turn,), 1) == request(config, (other,), 1)


def bad_turn(verdict: Verdict, text: str = "", note: str = "It was wrong.") -> Turn:
    return Turn(1, 1, 1, "", "", "", Reply(verdict, text, note))


@pytest.mark.parametrize("verdict", [v for v in Verdict if not v.runs and v is not Verdict.TEXT])
def test_an_unusable_reply_is_answered_with_what_was_wrong(verdict: Verdict) -> None:
    body = request(configured(), (bad_turn(verdict),), 1).body
    *_, assistant, user = messages(body)
    assert assistant == {"role": "assistant", "content": "[a reply that could not be used]"}
    assert user == {"role": "user", "content": "It was wrong."}


def test_text_is_answered_with_the_nudge() -> None:
    body = request(configured(), (bad_turn(Verdict.TEXT, "I am done", ""),), 1).body
    assert [m["content"] for m in messages(body)][-2:] == ["I am done", NUDGE]


@virtual
async def test_every_call_of_a_refused_reply_is_answered_too() -> None:
    world = World(calls(BASH, ("rm", {})), FINISHED)
    await world.run_to_end()
    history = json.loads(world.asked()[1])["messages"]
    strict(history)
    assert [m["role"] for m in history][-3:] == ["assistant", "tool", "tool"]
    assert all("no tool 'rm'" in m["content"] for m in history[-2:])


def test_the_opening_names_goal_context_and_files() -> None:
    config = configured(context="A small one.", files=(File("a/b.py", "x"),), instructions="Hurry.")
    system, user = messages(request(config, (), 1).body)
    assert "Hurry." in str(system["content"])
    assert (
        user["content"]
        == "Mend the sum.\n\nContext:\nA small one.\n\nFiles in the workspace:\n- a/b.py"
    )


def test_settings_of_the_model_are_sent_only_where_there_are_some() -> None:
    plain = json.loads(request(configured(), (), 1).body)
    assert set(plain) == {"messages", "model", "stream", "tool_choice", "tools"}
    config = configured(model_temperature=0.0, model_seed=7, model_max_output_tokens=100)
    tuned = json.loads(request(config, (), 1).body)
    assert (tuned["temperature"], tuned["seed"], tuned["max_tokens"]) == (0.0, 7, 100)


def test_only_enabled_tools_are_offered_in_the_order_of_the_catalogue() -> None:
    body = json.loads(request(configured(tools=("bash", "finish")), (), 1).body)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["bash", "finish"]


def test_a_task_of_an_earlier_version_is_told_of_the_tools_as_they_were() -> None:
    old = json.loads(request(configured(tools=("bash",), tools_version=1), (), 1).body)
    new = json.loads(request(configured(tools=("bash",)), (), 1).body)
    assert "are killed" in str(old) and "bash_output" not in str(old)
    assert "bash_output" in str(new)


def test_no_output_is_said_and_no_result_is_a_bug() -> None:
    assert render(Result(0, "k", Outcome.OK, "")) == "[no output]"
    with pytest.raises(ValueError, match="results are known"):
        render(None)
