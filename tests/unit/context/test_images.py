"""Images beside the goal: where they are in requests, what stays of them, and what they count as."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from ratchet.core.config import Config, ContextImage, ModelConfig
from ratchet.core.replies import Usage
from ratchet.core.telling import SANDBOX_LOST
from ratchet.core.transcript import History, request_after, told
from ratchet.core.window import IMAGE_TOKENS

from tests.unit.context.conversation import (
    Said,
    alternate,
    configured,
    messages,
    messages_before_closing,
    play,
    turns_of,
)

DRAWING = ContextImage("image/png", "iVBORw0KGgo=" * 5000)
PHOTO = ContextImage("image/jpeg", "/9j/" * 1000)
PATCHES = ((1024, 16), (1540, 2 * 14))
"""Pixels of the longest image and of what is one token: Pixtral 12B, Mistral Small 3.1 and later."""
LONG = Said(calls=((20, 8192),))


def shown(window: int | None = None, *images: ContextImage) -> Config:
    """A task with these images, two where none is named, at an endpoint with vision."""
    return replace(configured(window, vision=True), images=images or (DRAWING, PHOTO))


def blind(config: Config) -> ModelConfig:
    return replace(config.model, endpoint="other", vision=False)


def test_images_are_parts_of_the_first_message_behind_its_text() -> None:
    config = replace(shown(), context="It is a page.")
    system, user = messages(request_after(config, History.of(config), 1))
    assert isinstance(system["content"], str)
    assert user == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Mend the sum.\n\nContext:\nIt is a page."},
            {
                "type": "image_url",
                "image_url": {"url": f"data:image/png;base64,{DRAWING.data}"},
            },
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PHOTO.data}"}},
        ],
    }


def test_a_task_without_images_is_asked_for_with_the_same_bytes_at_any_endpoint() -> None:
    plain, seeing = configured(40_000), configured(40_000, vision=True)
    story = [LONG, Said(lost=True), *[LONG] * 10]
    for one, other in zip(play(plain, story), play(seeing, story), strict=True):
        assert one.request == other.request
        assert isinstance(messages(one.request)[1]["content"], str)


def test_with_images_each_request_begins_with_the_bytes_of_the_one_before() -> None:
    asked = list(play(shown(), [Said(), Said(calls=((20, 50), (20, 50))), Said(), Said()]))
    texts = [messages_before_closing(one.request) for one in asked]
    for before, after in pairwise(texts):
        assert after.startswith(before + ",")
    closings = {one.request.body[len(text) :] for one, text in zip(asked, texts, strict=True)}
    assert len(closings) == 1


def test_the_digest_is_that_of_the_body_with_its_images() -> None:
    config = shown()
    asked = request_after(config, History.of(config), 1)
    other = shown(None, replace(DRAWING, data=DRAWING.data[:-4]), PHOTO)
    assert request_after(config, History.of(config), 1) == asked
    assert request_after(other, History.of(other), 1).digest != asked.digest


def test_news_before_the_first_turn_come_behind_the_images_and_stay_there() -> None:
    config = shown()
    before = request_after(config, History.of(config), 1)
    *_, last = play(config, [Said(lost=True), Said(), Said()])
    asked = last.request
    goal = messages(asked)[1]["content"]
    assert isinstance(goal, list)
    assert goal[-1] == {"type": "text", "text": SANDBOX_LOST}
    assert asked.body.count(SANDBOX_LOST) == 1
    kept = messages_before_closing(before).removesuffix('],"role":"user"}')
    assert asked.body.startswith(kept + ",")


def test_news_of_later_turns_are_told_where_they_happened() -> None:
    *_, last = play(shown(), [Said(), Said(lost=True)])
    goal = messages(last.request)[1]["content"]
    assert isinstance(goal, list) and len(goal) == 3
    assert str(messages(last.request)[-1]["content"]).endswith(SANDBOX_LOST)


def test_images_stay_when_the_oldest_turns_are_told_no_more() -> None:
    config = shown(32_768)
    asked = list(play(config, [Said(lost=True), *[Said()] * 300]))
    gone = asked[-1].history.elision.gone
    system, goal, *rest = messages(asked[-1].request)
    assert gone > 50 and len(rest) == 2 * (300 - gone)
    assert isinstance(goal["content"], list)
    text, drawing, photo, later = goal["content"]
    assert text == {"type": "text", "text": "Mend the sum."}
    assert drawing["image_url"]["url"].endswith(DRAWING.data)
    assert photo["image_url"]["url"].endswith(PHOTO.data)
    assert later["text"].startswith(f"Turns 1 to {gone} of this task are no longer shown")
    assert later["text"].endswith(f"\n\n{SANDBOX_LOST}")
    for one in asked:
        assert one.request.tokens + one.request.reply_tokens <= 32_768
        alternate(messages(one.request))
    assert system["role"] == "system"


def test_an_endpoint_without_vision_is_told_how_many_images_there_were() -> None:
    config = shown()
    text = "Mend the sum.\n\n[2 images were given, which this model cannot take]"
    turns = turns_of(config, [Said(), Said()])
    asked = request_after(config, told(config, turns, blind(config)), 1, model=blind(config))
    seeing = request_after(config, told(config, turns), 1)
    assert messages(asked)[1] == {"role": "user", "content": text}
    assert messages(asked)[2:] == messages(seeing)[2:]
    one = shown(None, PHOTO)
    alone = request_after(one, History.of(one, blind(one)), 1, model=blind(one))
    said = "[1 image was given, which this model cannot take]"
    assert str(messages(alone)[1]["content"]).endswith(said)


def test_an_image_counts_as_the_tokens_that_models_make_of_it_whatever_its_bytes() -> None:
    plain = configured(131_072)
    small, large = (
        shown(131_072, replace(DRAWING, data=DRAWING.data[:size])) for size in (4, 60_000)
    )
    tokens = [request_after(c, History.of(c), 1).tokens for c in (plain, small, large)]
    assert tokens[1] == tokens[2]
    assert tokens[0] + IMAGE_TOKENS < tokens[1] < tokens[0] + IMAGE_TOKENS + 100
    two = shown(131_072)
    beside = request_after(two, History.of(two), 1).tokens - tokens[1]
    assert IMAGE_TOKENS < beside < IMAGE_TOKENS + 100


def test_the_bound_of_an_image_is_that_of_pixtral() -> None:
    pixtral, later = ((side // patch) * (side // patch + 1) for side, patch in PATCHES)
    assert max(pixtral, later) == IMAGE_TOKENS and later == 3080


def test_a_count_of_the_server_replaces_the_estimate_of_images() -> None:
    config = shown(131_072)
    (asked,) = play(config, [Said()])
    reply = replace(asked.turn.reply, usage=Usage(1500, 0, 20))
    after = asked.history.after(replace(asked.turn, reply=reply))
    assert asked.history.load.estimate > 2 * IMAGE_TOKENS
    assert 1500 < after.load.estimate < 1700


def test_a_count_of_up_to_three_times_the_estimate_of_an_image_is_believed() -> None:
    config = shown(131_072, DRAWING)
    (asked,) = play(config, [Said()])
    for count, believed in ((12_000, True), (100_000, False)):
        reply = replace(asked.turn.reply, usage=Usage(count, 0, 20))
        after = asked.history.after(replace(asked.turn, reply=reply))
        assert (after.load.tokens == count + 20) is believed


def test_images_leave_less_of_the_window_to_old_output() -> None:
    story = [LONG] * 8
    *_, plain = play(configured(32_768), story)
    *_, full = play(shown(32_768), story)
    assert plain.history.elision.bare < full.history.elision.bare
    assert full.request.tokens + full.request.reply_tokens <= 32_768


@pytest.mark.parametrize("squeeze", [1, 2])
def test_a_squeeze_never_takes_images_away(squeeze: int) -> None:
    config = shown()
    *_, last = play(config, [LONG] * 30)
    asked = request_after(config, last.history, 1, squeeze=squeeze)
    goal = messages(asked)[1]["content"]
    assert isinstance(goal, list) and [part["type"] for part in goal][1:3] == ["image_url"] * 2
    assert asked.tokens < last.request.tokens


def test_a_configuration_with_images_comes_back_from_its_record() -> None:
    config = shown()
    assert Config.from_json(config.to_json()) == config


def test_a_configuration_without_images_is_written_as_it_was_before_there_were_any() -> None:
    raw = json.loads(configured().to_json())
    assert "images" not in raw and "vision" not in raw["model"]
    assert Config.from_json(configured().to_json()).images == ()
