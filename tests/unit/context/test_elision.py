"""What is left out when a window fills: in one step, never back, and the prompt stays one prefix."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ratchet.core import telling, window
from ratchet.core.keys import canonical
from ratchet.core.records import Turn, Verdict
from ratchet.core.replies import Usage
from ratchet.core.telling import SANDBOX_LOST, Level, Told
from ratchet.core.transcript import History, asked_as, request_after, told
from ratchet.core.window import KEPT, reply_room, tokens_of
from ratchet.fakes.model import strict

from tests.unit.context.conversation import (
    Asked,
    Said,
    alternate,
    calls_during,
    configured,
    messages,
    messages_before_closing,
    play,
    said,
    stories,
    turn_of,
    turns_of,
)

WINDOWS = st.sampled_from([None, 8_000, 16_384, 40_000])
untimed = settings(deadline=None, max_examples=50)
LONG = Said(calls=((20, 8192),))


def answered(asked: Asked) -> History:
    return asked.history.after(asked.turn)


@untimed
@given(WINDOWS, stories())
def test_a_request_begins_with_the_bytes_of_the_one_before_but_for_steps(
    limit: int | None, story: list[Said]
) -> None:
    for before, after in pairwise(play(configured(limit), story)):
        if before.history.elision == after.history.elision:
            begin = messages_before_closing(before.request)
            begin = begin if not after.turn.generation > before.turn.generation else ""
            assert after.request.body.startswith(begin)
        closing = len(messages_before_closing(before.request))
        assert after.request.body.endswith(before.request.body[closing:])


@untimed
@given(WINDOWS, stories())
def test_what_is_left_out_never_comes_back(limit: int | None, story: list[Said]) -> None:
    seen = [asked.history.elision for asked in play(configured(limit), story)]
    for before, after in pairwise(seen):
        for name in ("gone", "trimmed", "bare", "short"):
            assert getattr(before, name) <= getattr(after, name)


@untimed
@given(WINDOWS, stories())
def test_the_size_of_a_request_is_known_without_looking_at_it(
    limit: int | None, story: list[Said]
) -> None:
    for asked in play(configured(limit), story):
        assert asked.history.load.size == len(asked.request.body.encode())
        assert asked.request.tokens == asked.history.load.estimate


@untimed
@given(st.sampled_from([12_000, 16_384, 40_000]), stories(squeezes=False))
def test_what_is_sent_stays_within_the_window_if_the_newest_turns_do(
    limit: int, story: list[Said]
) -> None:
    config = configured(limit)
    empty = len(request_after(config, History.of(config), 1).body)
    for asked in play(config, story):
        newest = [Told(t.turn).text(Level.WHOLE, 2) for t in asked.history.shown[-KEPT:]]
        size = empty + len("".join(newest).encode()) + 2 * len(SANDBOX_LOST) + 300
        if tokens_of(size) + reply_room(config.model) <= limit * 85 // 100:
            assert asked.request.tokens + asked.request.reply_tokens <= limit


@untimed
@given(WINDOWS, stories(), st.integers(0, 25))
def test_a_fold_in_parts_is_the_fold_of_the_whole(
    limit: int | None, story: list[Said], cut: int
) -> None:
    config = configured(limit)
    turns = turns_of(config, story)
    whole = told(config, turns)
    parts = told(config, turns[:cut])
    for turn in turns[cut:]:
        parts = parts.after(turn)
    plain = History()
    for turn in turns:
        plain = plain.after(turn)
    assert parts == whole
    asked = request_after(config, whole, 9)
    assert asked == request_after(config, parts, 9) == request_after(config, plain, 9)


@untimed
@given(WINDOWS, stories())
def test_every_call_is_answered_once_under_an_id_that_templates_take(
    limit: int | None, story: list[Said]
) -> None:
    for asked in play(configured(limit), story):
        shown = messages(asked.request)
        strict(shown)
        alternate(shown)
        for message in shown:
            for call in message.get("tool_calls", ()):  # type: ignore[attr-defined]
                assert re.fullmatch("[a-zA-Z0-9]{9}", call["id"])


@untimed
@given(WINDOWS, stories())
def test_a_squeeze_that_worked_is_found_again_in_the_journal(
    limit: int | None, story: list[Said]
) -> None:
    config = configured(limit)
    before = History.of(config)
    for step, asked in zip(story, play(config, story), strict=True):
        found = asked_as(config, before, asked.turn)
        assert found is not None and found <= step.squeeze
        same = request_after(config, before, asked.turn.generation, squeeze=found)
        assert same == asked.request
        before = before.after(asked.turn)


def test_a_turn_without_a_step_costs_the_same_however_many_there_were_before() -> None:
    config = configured(10_000_000)

    def cost(turns: int) -> int:
        *_, last = play(config, [Said()] * (turns + 1))

        def act() -> None:
            request_after(config, last.history.after(last.turn), 1)

        act()
        return calls_during(act)

    assert cost(600) == cost(6)


def test_a_step_costs_more() -> None:
    """The measure of the test above sees a step."""
    config = configured(16_384)
    costs = [
        calls_during(lambda asked=asked: asked.history.after(asked.turn))  # type: ignore[misc]
        for asked in play(config, [LONG] * 4)
    ]
    assert max(costs) > 2 * min(costs)


def test_steps_are_few_and_large() -> None:
    config = configured(131_072)
    asked = list(play(config, [LONG] * 200))
    steps = [b for a, b in pairwise(asked) if a.history.elision != b.history.elision]
    assert 8 <= len(steps) <= 14
    assert all(one.request.tokens < 0.55 * 131_072 for one in steps)


def test_an_unknown_window_leaves_nothing_out() -> None:
    *_, last = play(configured(None), [LONG] * 100)
    assert "elided" not in last.request.body


def test_a_task_of_an_earlier_version_leaves_nothing_out_by_itself() -> None:
    config = replace(configured(16_384), transcript_version=1)
    *_, last = play(config, [LONG] * 20)
    assert "elided" not in last.request.body
    squeezed = request_after(config, last.history, 1, squeeze=1)
    assert "elided" in squeezed.body and squeezed.tokens <= last.request.tokens * 0.51


def test_the_oldest_results_go_first_and_are_named() -> None:
    *_, last = play(configured(40_000), [LONG] * 12)
    contents = [m["content"] for m in messages(last.request) if m["role"] == "tool"]
    stub = "[elided: 8192 bytes of output of bash; run it again if needed]"
    assert contents == [*[stub] * 5, *["x" * 8192] * 6]


def test_results_that_are_no_longer_than_their_stub_stay() -> None:
    story = [Said(calls=((20, 10),)), *[LONG] * 11]
    *_, last = play(configured(40_000), story)
    first, second, *_ = [m["content"] for m in messages(last.request) if m["role"] == "tool"]
    assert first == "x" * 10 and str(second).startswith("[elided")


def test_then_long_arguments_and_texts_of_old_turns_go_and_stay_json_objects() -> None:
    wrote = Said(calls=((6000, 10),), text=3000)
    *_, last = play(configured(40_000), [wrote] * 12)
    assert last.history.elision.trimmed > 0 and last.history.elision.gone == 0
    assistant = messages(last.request)[2]
    assert len(str(assistant["content"])) <= telling.MAX_TRIMMED
    calls: Any = assistant["tool_calls"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"command": "[elided: 6000 bytes]"}


@untimed
@given(st.dictionaries(st.text(), st.text() | st.lists(st.text()) | st.integers()))
def test_trimmed_arguments_are_a_small_object(arguments: dict[str, object]) -> None:
    text = canonical(arguments)
    short = telling.trimmed(text)
    assert isinstance(json.loads(short), dict)
    assert len(short.encode()) <= max(telling.MAX_TRIMMED, len(text.encode()) // 2)


def test_then_the_oldest_turns_are_told_no_more_and_that_is_said() -> None:
    *_, last = play(configured(16_384), [Said()] * 300)
    gone = last.history.elision.gone
    _, goal, *rest = messages(last.request)
    assert gone > 100
    assert str(goal["content"]).startswith("Mend the sum.\n\nTurns 1 to ")
    assert f"Turns 1 to {gone} of this task are no longer shown" in str(goal["content"])
    assert len(rest) == 2 * (299 - gone)


def test_at_last_the_newest_results_lose_their_middle() -> None:
    *_, last = play(configured(16_384), [Said(), Said(calls=((20, 60_000),)), Said()])
    content = str(messages(last.request)[-1]["content"])
    assert len(content) <= telling.MAX_SHORT and "bytes cut" in content
    assert last.request.tokens + last.request.reply_tokens <= 16_384


def test_news_of_a_lost_sandbox_survive_until_their_turn_is_gone() -> None:
    story = [LONG, Said(calls=((20, 8192),), lost=True), *[LONG] * 10]
    *_, last = play(configured(40_000), story)
    (first, *_) = [str(m["content"]) for m in messages(last.request) if m["role"] == "tool"]
    assert first.startswith("[elided: 8192") and first.endswith(SANDBOX_LOST)


def test_news_before_the_first_turn_join_the_goal() -> None:
    config = configured()
    asked = request_after(config, History.of(config), 2)
    assert str(messages(asked)[-1]["content"]) == f"Mend the sum.\n\n{SANDBOX_LOST}"


@pytest.mark.parametrize("squeeze", [1, 2])
def test_a_squeeze_brings_the_estimate_down_and_stays(squeeze: int) -> None:
    config = configured(None)
    *_, last = play(config, [LONG] * 30)
    before = request_after(config, last.history, 1)
    after = request_after(config, last.history, 1, squeeze=squeeze)
    assert after.tokens <= before.tokens / 2**squeeze
    assert after.turn == before.turn and after.digest != before.digest
    turn = play_on(last, squeeze)
    assert last.history.after(turn).elision == last.history.squeezed(squeeze).elision


def play_on(last: Asked, squeeze: int) -> Turn:
    asked = request_after(configured(None), last.history, 1, squeeze=squeeze)
    return turn_of(LONG, last.history.turns + 1, 1, asked)


def test_where_nothing_can_be_left_out_a_squeeze_changes_nothing() -> None:
    config = configured(None)
    one = request_after(config, History.of(config), 1)
    assert one == request_after(config, History.of(config), 1, squeeze=2)


def test_a_count_of_the_server_replaces_the_estimate_of_what_it_counted() -> None:
    config = configured(131_072)
    *_, guessed = play(config, [Said(text=9000), Said()])
    *_, counted = play(config, [Said(text=9000, counted=True), Said()])
    usage = Usage(len(request_after(config, History.of(config), 1).body) * 2 // 7, 0, 2580)
    after = counted.request.tokens - usage.prompt - usage.completion
    assert counted.request.body == guessed.request.body
    assert counted.request.tokens < guessed.request.tokens
    assert 0 <= after < 100


def test_reasoning_is_not_part_of_the_next_prompt() -> None:
    config = configured(131_072)
    (asked,) = play(config, [Said(calls=((4000, 10),), counted=True)])
    usage = asked.turn.reply.usage
    silent = replace(usage, reasoning=1000)
    after = [
        asked.history.after(replace(asked.turn, reply=replace(asked.turn.reply, usage=one)))
        for one in (usage, silent)
    ]
    assert after[0].load.estimate - after[1].load.estimate == 1000


def test_a_count_that_is_none_of_this_text_is_not_believed() -> None:
    config = configured(131_072)
    history = History.of(config)
    (asked,) = play(config, [Said()])
    reply = replace(asked.turn.reply, usage=Usage(10**9, 0, 10**9))
    after = history.after(replace(asked.turn, reply=reply))
    assert after.load.estimate <= len(asked.request.body) + 1000


def test_the_model_is_told_the_constraints_of_its_task() -> None:
    config = replace(configured(), instructions="Hurry.", constraints=("Use git.", "No network."))
    system = str(messages(request_after(config, History.of(config), 1))[0]["content"])
    assert system.endswith("\n\nHurry.\n\nKeep to these constraints:\n- Use git.\n- No network.")


def test_how_much_to_think_is_sent_only_where_it_is_given() -> None:
    plain, high = configured(), configured(reasoning_effort="high")
    bodies = [json.loads(request_after(c, History.of(c), 1).body) for c in (plain, high)]
    assert "reasoning_effort" not in bodies[0] and bodies[1]["reasoning_effort"] == "high"


def test_each_endpoint_is_told_as_much_as_its_window_takes() -> None:
    config = configured(40_000)
    larger = replace(config.model, endpoint="larger", namespace="models", context_window=131_072)
    turns = turns_of(config, [LONG] * 12)
    small = request_after(config, told(config, turns), 1)
    whole = request_after(config, told(config, turns, larger), 1, model=larger)
    assert "elided" in small.body and "elided" not in whole.body
    assert whole.tokens > small.tokens and whole.turn == small.turn == 13


def test_a_task_of_an_earlier_version_is_told_of_a_lost_sandbox_as_it_was_then() -> None:
    config = replace(configured(), transcript_version=1)
    turns = turns_of(config, [Said(), Said(lost=True)])
    *_, tool, news, _, _ = messages(request_after(config, told(config, turns), 2))
    assert tool["role"] == "tool" and news == {"role": "user", "content": SANDBOX_LOST}


def test_a_history_of_another_endpoint_is_refused() -> None:
    config = configured()
    other = replace(config.model, endpoint="other")
    with pytest.raises(ValueError, match="not other"):
        request_after(config, History.of(config), 1, model=other)
    assert request_after(config, History(), 1, model=other).turn == 1


@untimed
@given(said(), st.sampled_from(list(Level)[:-1]))
def test_less_is_never_more(one: Said, level: Level) -> None:
    """Bytes of a level are within those of the one above, but for a line that says what is gone."""
    (turn,) = turns_of(configured(), [one])
    sizes = [len(Told(turn).text(each, 2).encode()) for each in (level, Level(level + 1))]
    assert sizes[1] <= sizes[0]


def test_an_elided_reply_that_was_refused_keeps_its_calls_and_their_answers() -> None:
    refused = Said(verdict=Verdict.MALFORMED, calls=((9000, 0),))
    *_, last = play(configured(16_384), [refused] * 12)
    strict(messages(last.request))
    assert last.request.tokens + last.request.reply_tokens <= 16_384
    assert window.bounds(configured(16_384).model) == window.Bounds(11878, 6987)
