"""How full a model's window is, and what is left out of a conversation when it fills. Pure.

Old output goes in one large step, and not a little with each turn: between two steps the
conversation only grows at its end, so that the engine's prefix cache serves all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ratchet.core.config import ContextImage, ModelConfig
from ratchet.core.telling import Level

BYTES_PER_TOKEN = 3
"""Of text that no server has counted yet: a little less than what code and English have."""
IMAGE_TOKENS = 4160
"""Of an image that no server has counted yet: the most that Mistral's models make of one. Pixtral
12B scales images down to 1,024 pixels and cuts them into patches of 16, which gives 64 rows of 64
tokens and a break each (https://huggingface.co/mistral-community/pixtral-12b, config.json and
processor_config.json). Mistral Small 3.1 and later take 1,540 pixels in patches of 14, of which
2 x 2 are one token: 55 rows of 55 and a break, 3,080 (spatial_merge_size in the same files of
https://huggingface.co/mistralai/Mistral-Small-3.1-24B-Instruct-2503)."""
KEPT = 3
"""Newest turns of which nothing is left out while they fit."""
MAX_ROOM = 4096
"""Tokens that are kept free for a reply where the endpoint names no bound of its own."""
SQUEEZES = (0, 1, 2)
"""How often the server may say of one request that it does not fit."""


@dataclass(frozen=True, slots=True)
class Load:
    """The size of a request: `counted` bytes that the server counted as `tokens`, and the `rest`.

    An image has as many bytes here as text of its tokens has, whatever its own are.
    """

    rest: int = 0
    counted: int = 0
    tokens: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.counted + self.rest

    @property
    def estimate(self) -> int:
        """Tokens."""
        return self.tokens + tokens_of(self.rest)

    def plus(self, size: int) -> Load:
        """The load with so many more bytes that nobody has counted."""
        return replace(self, rest=self.rest + size)

    def less(self, counted: int, rest: int) -> Load:
        """The load without so many bytes of each kind. What was counted is taken to be even."""
        over = max(0, rest - self.rest)
        left = self.counted - counted - over
        tokens = -(-self.tokens * left // self.counted) if self.counted else 0
        return Load(self.rest - rest + over, left, tokens)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Tokens of a prompt: more than `most` brings it down to `target`."""

    most: int
    target: int


@dataclass(frozen=True, slots=True)
class Elision:
    """Up to which turn less is told, for each way of telling less."""

    gone: int = 0
    trimmed: int = 0
    bare: int = 0
    short: int = 0

    def level(self, number: int) -> Level:
        """How much is told of this turn."""
        for upto, level in (
            (self.gone, Level.GONE),
            (self.trimmed, Level.TRIMMED),
            (self.bare, Level.BARE),
            (self.short, Level.SHORT),
        ):
            if number <= upto:
                return level
        return Level.WHOLE


def tokens_of(size: int) -> int:
    """An estimate for so many bytes that no server has counted."""
    return -(-size // BYTES_PER_TOKEN)


def image_bytes(images: Sequence[ContextImage]) -> int:
    """Bytes of text that would take as many tokens as these images."""
    return len(images) * IMAGE_TOKENS * BYTES_PER_TOKEN


def data_bytes(images: Sequence[ContextImage]) -> int:
    """Bytes of these images in a request, of which no token is made."""
    return sum(len(image.data) for image in images)


def reply_room(model: ModelConfig) -> int:
    """Tokens that are kept free for the reply; never more than half of the window."""
    window = model.context_window
    if model.max_output_tokens is not None:
        return (
            model.max_output_tokens if window is None else min(model.max_output_tokens, window // 2)
        )
    return MAX_ROOM if window is None else min(MAX_ROOM, window // 8)


def bounds(model: ModelConfig) -> Bounds | None:
    """When a conversation is too long for this endpoint, and what for; None if nobody knows.

    0.85 of the window is left to prompt and reply, since the estimate is one; a step leads to what
    0.5 of the window is without a reply.
    """
    if model.context_window is None:
        return None
    most = max(0, model.context_window * 85 // 100 - reply_room(model))
    return Bounds(most, most * 10 // 17)


def squeezed(load: Load, squeeze: int) -> Bounds:
    """What a request is brought to that the server said does not fit: a half, then a quarter."""
    tokens = load.estimate // 2**squeeze
    return Bounds(tokens, tokens)


def step(
    load: Load,
    elision: Elision,
    sizes: Sequence[Sequence[int]],
    counted: int,
    wanted: Bounds,
    note: Callable[[int], int],
) -> tuple[Elision, Load]:
    """What is left out next, and the load that this leads to. Nothing that is left out comes back.

    `sizes` are the bytes, by level, of each turn that is still told, up to the newest; those of
    turns before `counted` are among the counted bytes. `note` is the size of what stands for so
    many turns that are told no more. In this order, the oldest turns first, each only as far as
    needed: results of all but the newest turns; what the model wrote in these turns; these turns
    as a whole; and, where the newest alone are too much, the middle of their results.
    """
    newest = elision.gone + len(sizes)
    old = newest - KEPT
    way = _Way(load, elision, sizes, counted)
    bare = way.tell(range(elision.bare + 1, old + 1), Level.BARE, wanted.target)
    trimmed = way.tell(range(elision.trimmed + 1, bare + 1), Level.TRIMMED, wanted.target)
    gone, short = elision.gone, elision.short
    if way.load.estimate > (wanted.target + wanted.most) // 2:
        gone = way.tell(range(gone + 1, old + 1), Level.GONE, wanted.target)
        way.noted += note(gone) - note(elision.gone)
    if way.load.estimate > wanted.most:
        short = way.tell(range(max(bare, short) + 1, newest + 1), Level.SHORT, wanted.most)
    return Elision(gone, max(trimmed, gone), max(bare, gone), max(short, bare)), way.load


@dataclass(slots=True)
class _Way:
    """A step on its way."""

    before: Load
    elision: Elision
    sizes: Sequence[Sequence[int]]
    counted: int
    saved: dict[int, int] = field(default_factory=dict)
    _saved_counted: int = 0
    _saved_rest: int = 0
    noted: int = 0

    @property
    def load(self) -> Load:
        return self.before.less(self._saved_counted, self._saved_rest).plus(self.noted)

    def tell(self, turns: range, level: Level, goal: int) -> int:
        """Tell these turns so until the goal is met. Returns the last one that is."""
        for number in turns:
            if self.load.estimate <= goal:
                return number - 1
            self._lower(number, level)
        return max(turns.stop, turns.start) - 1

    def _lower(self, number: int, level: Level) -> None:
        sizes = self.sizes[number - self.elision.gone - 1]
        saved = sizes[self.elision.level(number)] - sizes[level]
        more = saved - self.saved.get(number, 0)
        self.saved[number] = saved
        if number < self.counted:
            self._saved_counted += more
        else:
            self._saved_rest += more
