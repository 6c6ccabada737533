"""How a turn is told to the model, whole or with less of it.

Roles alternate as Mistral's chat templates enforce it: counting neither calls nor their results,
a user's message is followed by one of the assistant, and that by one of the user
(https://huggingface.co/mistralai/Devstral-Small-2-24B-Instruct-2512, chat_template.jinja). A server
with such a template answers anything else with an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum

from ratchet.core.config import TRANSCRIPT_VERSION, ContextImage
from ratchet.core.keys import canonical
from ratchet.core.records import Call, Reply, Result, Turn, Verdict
from ratchet.core.sizes import cut

NUDGE = (
    "Your reply called no tool. If the goal is reached, or cannot be reached, call the tool "
    "`finish` with a summary. Otherwise call the next tool."
)
SANDBOX_LOST = (
    "The sandbox was lost and a new one was made. The workspace is as it was at the start of the "
    "task: earlier changes to files, and everything that was running, are gone."
)
_GONE = (
    "Turns 1 to {turns} of this task are no longer shown, because the conversation would not fit "
    "your context. What they did is done: look at the workspace, and go on from there."
)
MAX_SHORT = 2048
"""Bytes of a result of one of the newest turns that do not fit as they are."""
MAX_TRIMMED, MAX_VALUE = 1024, 256
"""Bytes of arguments or text of an old turn that are left alone, and of a value in longer ones."""


class Level(IntEnum):
    """How much of a turn is told."""

    WHOLE = 0
    SHORT = 1
    """Results have their head and tail."""
    BARE = 2
    """Results are named and no more."""
    TRIMMED = 3
    """The same, and what the model itself wrote at length is cut."""
    GONE = 4


@dataclass(frozen=True, slots=True)
class Told:
    """A turn in a conversation. `news`: after it the model is told that the sandbox was lost."""

    turn: Turn
    news: bool = False

    def text(self, level: Level, version: int) -> str:
        """The messages as JSON text, a comma before each."""
        if level is Level.GONE:
            return ""
        return reply(self.turn, level) + answers(self.turn, level, self.news, version)


def goal(
    text: str,
    gone: int = 0,
    news: bool = False,
    version: int = TRANSCRIPT_VERSION,
    images: tuple[ContextImage, ...] = (),
) -> str:
    """What the task is, and what stands for its oldest turns where they are told no more.

    What joins it later comes behind the images, so that these stay in the prefix; images are
    younger than the versions that told news otherwise.
    """
    note = _GONE.format(turns=gone) if gone else ""
    if not images:
        return _closed([_user(f"{text}\n\n{note}" if note else text)], news, version)
    later = "\n\n".join(said for said in (note, SANDBOX_LOST if news else "") if said)
    parts = [_text(text), *map(_image, images), *([_text(later)] if later else [])]
    return "," + canonical({"role": "user", "content": parts})


def no_vision(images: int) -> str:
    """What stands for so many images where the model takes none."""
    given = "1 image was" if images == 1 else f"{images} images were"
    return f"[{given} given, which this model cannot take]"


def reply(turn: Turn, level: Level = Level.WHOLE) -> str:
    """The model's own part of a turn."""
    short = level >= Level.TRIMMED
    said = turn.reply.text
    if not turn.reply.calls:
        unusable = turn.reply.verdict is not Verdict.TEXT
        said = said or ("[a reply that could not be used]" if unusable else "")
    text = cut(said, MAX_TRIMMED) if short else said
    if not turn.reply.calls:
        return "," + canonical({"role": "assistant", "content": text})
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.tool,
                "arguments": trimmed(call.arguments) if short else call.arguments,
            },
        }
        for call in turn.reply.calls
    ]
    return "," + canonical({"role": "assistant", "content": text, "tool_calls": calls})


def answers(
    turn: Turn,
    level: Level = Level.WHOLE,
    news: bool = False,
    version: int = TRANSCRIPT_VERSION,
) -> str:
    """What the model's part is answered with: one message for each call, or one for a text."""
    if not turn.reply.calls:
        return _closed([_user(turn.reply.note or NUDGE)], news, version)
    messages: list[dict[str, object]] = [
        {"role": "tool", "tool_call_id": call.id, "content": _answer(turn, call, level)}
        for call in turn.reply.calls
    ]
    return _closed(messages, news, version)


def render(result: Result | None) -> str:
    """A result as the model reads it. The outcome is only named where the text alone would mislead."""
    if result is None:
        raise ValueError("a turn is only shown to the model once all its results are known")
    return result.content or "[no output]"


def trimmed(arguments: str) -> str:
    """Arguments of an old call within bounds: an object still, its long values named and no more."""
    size = len(arguments.encode())
    if size <= MAX_TRIMMED:
        return arguments
    short = canonical({name: _value(value) for name, value in json.loads(arguments).items()})
    if len(short.encode()) <= max(MAX_TRIMMED, size // 2):
        return short
    return canonical({"elided": f"{size} bytes of arguments"})


def _answer(turn: Turn, call: Call, level: Level) -> str:
    if not turn.reply.verdict.runs:
        return _note(turn.reply, level)
    text = render(turn.result(call.index))
    if level is Level.WHOLE:
        return text
    if level is Level.SHORT:
        return cut(text, MAX_SHORT)
    size = len(text.encode())
    stub = f"[elided: {size} bytes of output of {call.tool}; run it again if needed]"
    return stub if len(stub) < size else text


def _note(reply: Reply, level: Level) -> str:
    return reply.note if level < Level.BARE else cut(reply.note, MAX_VALUE)


def _value(value: object) -> object:
    size = len((value if isinstance(value, str) else canonical(value)).encode())
    return value if size <= MAX_VALUE else f"[elided: {size} bytes]"


def _closed(messages: list[dict[str, object]], news: bool, version: int) -> str:
    """The messages before a reply, with the news: in the last one, since roles alternate."""
    if news and version < 2:
        messages = [*messages, _user(SANDBOX_LOST)]
    elif news:
        *before, last = messages
        messages = [*before, {**last, "content": f"{last['content']}\n\n{SANDBOX_LOST}"}]
    return "".join("," + canonical(message) for message in messages)


def _user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _image(image: ContextImage) -> dict[str, object]:
    url = f"data:{image.media_type};base64,{image.data}"
    return {"type": "image_url", "image_url": {"url": url}}
