"""Images of a task: which are taken, at which endpoints, and what is said of the others."""

from __future__ import annotations

import base64
from typing import Any

import cel
import pytest
from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.images import ContextImage, MediaType
from ratchet.api.modelconfig import least_tokens
from ratchet.api.resolve import Problems, resolve
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.task import AgentTask, AgentTaskSpec
from ratchet.core import config as core
from ratchet.core.window import IMAGE_TOKENS

BEGINNINGS = {
    "image/png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "image/webp": b"RIFF\x24\0\0\0WEBPVP8 ",
    "image/gif": b"GIF89a\1\0\1\0",
}


def image(media_type: str = "image/png", data: bytes | str | None = None) -> dict[str, str]:
    given = BEGINNINGS[media_type] if data is None else data
    text = given if isinstance(given, str) else base64.b64encode(given).decode()
    return {"mediaType": media_type, "data": text}


def endpoint(name: str = "eyes", **spec: Any) -> ModelEndpoint:
    given = {"url": "http://sglang:30000/v1", "model": "m", **spec}
    return ModelEndpoint.model_validate({"metadata": {"name": name}, "spec": given})


SEEING, BLIND = endpoint(vision=True), endpoint("blind")


def outcome(images: list[dict[str, str]], *endpoints: ModelEndpoint) -> core.Config | Problems:
    spec = {"goal": "Mend the page.", "contextImages": images}
    return resolve(
        AgentTask.model_validate({"spec": spec}),
        None,
        endpoints=endpoints or [SEEING],
        sandbox_class=SandboxClass.model_validate({"spec": {"image": "debian:12"}}),
    )


def resolved(images: list[dict[str, str]], *endpoints: ModelEndpoint) -> core.Config:
    config = outcome(images, *endpoints)
    assert isinstance(config, core.Config)
    return config


def refused(images: list[dict[str, str]], *endpoints: ModelEndpoint) -> Problems:
    problems = outcome(images, *endpoints)
    assert isinstance(problems, Problems)
    return problems


def test_the_images_of_a_task_are_kept_in_their_order() -> None:
    given = [image(media_type) for media_type in BEGINNINGS]
    config = resolved(given)
    assert [(one.media_type, one.data) for one in config.images] == [
        (one["mediaType"], one["data"]) for one in given
    ]
    assert config.model.vision
    assert core.Config.from_json(config.to_json()) == config


def test_no_images_are_the_same_as_none_named() -> None:
    assert resolved([], BLIND).images == ()


def test_an_endpoint_that_says_nothing_has_no_vision() -> None:
    assert not resolved([], BLIND).model.vision
    assert not resolved([], endpoint(vision=False)).model.vision


def test_a_first_endpoint_without_vision_can_be_given_it() -> None:
    problems = refused([image(), image()], BLIND, SEEING)
    assert not problems.lasting
    assert problems.sentences == (
        "spec.contextImages has 2 images, and ModelEndpoint blind, which is asked first, does not"
        " say that its model takes any: set vision: true on it if its model takes images, or leave"
        " contextImages out.",
    )
    (sentence,) = refused([image()], BLIND).sentences
    assert sentence.startswith("spec.contextImages has an image, and ModelEndpoint blind")


def test_a_fallback_needs_no_vision() -> None:
    config = resolved([image()], SEEING, BLIND)
    assert [model.vision for model in config.endpoints] == [True, False]


@pytest.mark.parametrize(
    "data", ["iVBORw0KGgo", "iVBO Rw0K", "data:image/png;base64,iVBORw0KGgo=", "A===", "äöüß"]
)
def test_data_that_is_not_base64_is_refused_for_good_by_its_index(data: str) -> None:
    problems = refused([image(), image(data=data)])
    assert problems.lasting
    (sentence,) = problems.sentences
    assert sentence.startswith("spec.contextImages[1].data is not base64: ")
    assert "`base64 -w0 FILE`" in sentence


@pytest.mark.parametrize("said", BEGINNINGS)
@pytest.mark.parametrize("is_one", BEGINNINGS)
def test_data_of_another_type_is_refused_with_the_type_that_it_is(said: str, is_one: str) -> None:
    given = image(said, BEGINNINGS[is_one])
    if said == is_one:
        assert resolved([given]).images[0].media_type == said
        return
    problems = refused([given])
    assert problems.lasting
    assert problems.sentences == (
        f"spec.contextImages[0] is {is_one}, not {said}: set mediaType to {is_one}.",
    )


@pytest.mark.parametrize("data", [b"%PDF-1.7 ...", b"RIFF\x24\0\0\0WAVEfmt ", b"BM6", b"\x89PNG\n"])
def test_data_that_is_no_image_is_refused_with_what_to_do(data: bytes) -> None:
    (sentence,) = refused([image(data=data)]).sentences
    assert sentence.startswith("spec.contextImages[0].data does not begin as image/png does: give")


def test_each_wrong_image_has_a_sentence_of_its_own() -> None:
    problems = refused([image(data="????"), image(), image("image/gif", b"no image")], BLIND)
    assert [sentence.split(" ")[0] for sentence in problems.sentences] == [
        "spec.contextImages[0].data",
        "spec.contextImages[2].data",
        "spec.contextImages",
    ]
    assert problems.lasting


def test_a_window_too_small_for_goal_and_images_is_refused_with_what_they_count_as() -> None:
    large = endpoint(vision=True, contextWindow=32_768)
    small = endpoint(vision=True, contextWindow=8192)
    resolved([image()] * 2, large)
    resolved([], small)
    problems = refused([image()] * 2, small)
    assert not problems.lasting
    (sentence,) = problems.sentences
    least = least_tokens(resolved([image()] * 2, large))
    assert 2 * IMAGE_TOKENS < least < 2 * IMAGE_TOKENS + 3000
    assert f"with images (4160 for each of 2) take about {least} tokens" in sentence
    assert "contextWindow (8192) of ModelEndpoint eyes" in sentence
    assert "give fewer images" in sentence


def test_the_bytes_of_an_image_do_not_fill_a_window() -> None:
    drawing = image(data=BEGINNINGS["image/png"] + b"\0" * 100_000)
    resolved([drawing], endpoint(vision=True, contextWindow=8192))


def test_a_fallback_without_vision_needs_no_room_for_images() -> None:
    resolved([image()] * 4, SEEING, endpoint("blind", contextWindow=8192))


# Rules of the CRD


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        ("iVBORw0KGgo=", True),
        ("AA==", True),
        ("AAAA", True),
        ("a+/9", True),
        ("AAA", False),
        ("A===", False),
        ("AA==AA==", False),
        ("AAAA\n", False),
        ("AA AA", False),
        ("AA-_", False),
        ("data:image/png;base64,AAAA", False),
    ],
)
def test_the_rule_about_data_takes_base64(data: str, fits: bool) -> None:
    (rule,) = ContextImage.RULES
    assert cel.evaluate(rule.rule, {"self": {"data": data}}) is fits


def test_the_api_server_knows_the_types_that_the_operator_knows() -> None:
    assert [str(one) for one in MediaType] == list(BEGINNINGS)


def test_data_counts_into_the_bytes_of_goal_context_and_files() -> None:
    (rule,) = (rule for rule in AgentTaskSpec.RULES if "<= 204800" in rule.rule)
    assert "self.contextImages.map(i, size(i.data)).sum()" in rule.rule
    assert "contextImages" in rule.message
