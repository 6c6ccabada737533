"""Images in the context of a task, and what is wrong with them, in sentences. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from ratchet.api.base import Model, Rule, chars
from ratchet.api.common import INLINE_MAX
from ratchet.core import config as core


class MediaType(StrEnum):
    """Kinds of images that are sent to models."""

    PNG = "image/png"
    JPEG = "image/jpeg"
    WEBP = "image/webp"
    GIF = "image/gif"


class ContextImage(Model):
    """An image that the model is shown with the goal."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="self.data.matches('^[A-Za-z0-9+/]+={0,2}$') && size(self.data) % 4 == 0",
            message=(
                "data is not base64: give the bytes of the image as `base64 -w0 FILE` prints them,"
                " on one line and without data: before them"
            ),
            field=".data",
        ),
    )

    media_type: MediaType
    """What the data is: image/png, image/jpeg, image/webp or image/gif. Required."""
    data: Annotated[str, chars(INLINE_MAX, least=4)]
    """The bytes of the image as base64, on one line. They count into the 200 KiB that goal, context,
    images and inline files may have together. Required."""


def image_problems(images: Sequence[core.ContextImage]) -> tuple[str, ...]:
    """Why images cannot be sent to a model, each with what to do; empty where they can."""
    found = (_problem(image) for image in images)
    return tuple(
        f"spec.contextImages[{index}]{problem}" for index, problem in enumerate(found) if problem
    )


def _problem(image: core.ContextImage) -> str:
    try:
        data = base64.b64decode(image.data, validate=True)
    except ValueError:  # also for what is not ASCII
        return (
            ".data is not base64: give the bytes of the image as `base64 -w0 FILE` prints them, on"
            " one line and without data: before them."
        )
    if _is(data, image.media_type):
        return ""
    for media_type in MediaType:
        if _is(data, media_type):
            return f" is {media_type}, not {image.media_type}: set mediaType to {media_type}."
    return (
        f".data does not begin as {image.media_type} does: give the file of an image of that type,"
        " or set mediaType to what it is."
    )


_MAGIC: Final[dict[str, tuple[tuple[int, bytes], ...]]] = {
    MediaType.PNG: ((0, b"\x89PNG\r\n\x1a\n"),),
    MediaType.JPEG: ((0, b"\xff\xd8\xff"),),
    MediaType.WEBP: ((0, b"RIFF"), (8, b"WEBP")),
    MediaType.GIF: ((0, b"GIF8"),),
}
"""What is at which place in the files of each type."""


def _is(data: bytes, media_type: str) -> bool:
    return all(data[at : at + len(magic)] == magic for at, magic in _MAGIC[media_type])
