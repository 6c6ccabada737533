"""Journals of any shape, made without a loop, and the requests that they give."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from hypothesis import strategies as st
from ratchet.core.config import Config, ModelConfig, SandboxConfig
from ratchet.core.keys import call_id, call_key, canonical
from ratchet.core.records import Call, Outcome, Reply, Result, Turn, Verdict
from ratchet.core.replies import Usage
from ratchet.core.tools import enabled_tools
from ratchet.core.transcript import History, Request, request_after

UID = "11111111-2222-3333-4444-555555555555"


@dataclass(frozen=True)
class Said:
    """What a turn holds: bytes of text, and of arguments and result of each call."""

    verdict: Verdict = Verdict.CALLS
    text: int = 0
    calls: tuple[tuple[int, int], ...] = ((20, 100),)
    letter: str = "x"
    counted: bool = False
    """Whether the server says how many tokens it took."""
    elsewhere: bool = False
    """Whether another endpoint answered."""
    lost: bool = False
    """Whether the sandbox was lost before it."""
    squeeze: int = 0


@dataclass(frozen=True)
class Asked:
    """A request of a conversation, the history that it is of, and what answered it."""

    request: Request
    history: History
    turn: Turn


def configured(window: int | None = None, **model: object) -> Config:
    asked = ModelConfig("default", "http://model/v1", "m", context_window=window)
    return Config(
        goal="Mend the sum.",
        model=replace(asked, **model),  # type: ignore[arg-type]
        sandbox=SandboxConfig(image="debian"),
        tools=enabled_tools((), ()),
    )


def reply_of(said: Said, number: int, prompt: Request) -> Reply:
    """The reply of a model that takes 3.5 bytes for a token."""
    calls = tuple(
        Call(i, call_id(UID, number, i), "bash", canonical({"command": said.letter * size}))
        for i, (size, _) in enumerate(said.calls)
    )
    size = len(prompt.body.encode())
    completion = sum(len(call.arguments) for call in calls) + said.text
    return Reply(
        verdict=said.verdict,
        text=said.letter * said.text,
        note="" if said.verdict.runs else "It was wrong.",
        calls=() if said.verdict in (Verdict.TEXT, Verdict.EMPTY) else calls,
        usage=Usage(size * 2 // 7, 0, completion * 2 // 7) if said.counted else Usage(),
        endpoint="other" if said.elsewhere else "default",
    )


def turn_of(said: Said, number: int, generation: int, prompt: Request) -> Turn:
    reply = reply_of(said, number, prompt)
    results = tuple(
        Result(call.index, call_key(UID, number, call.index), Outcome.OK, said.letter * size)
        for call, (_, size) in zip(reply.calls, said.calls, strict=False)
    )
    return Turn(
        number=number,
        epoch=1,
        generation=generation,
        ledger="l",
        previous="",
        request_digest=prompt.digest,
        reply=reply,
        results=results if reply.verdict.runs else None,
    )


def play(config: Config, story: Iterable[Said]) -> Iterator[Asked]:
    """What is asked at each turn of a story, and answered."""
    history, generation = History.of(config), 1
    for number, said in enumerate(story, start=1):
        generation += said.lost
        squeeze = 0 if said.elsewhere else said.squeeze
        asked = request_after(config, history, generation, squeeze=squeeze)
        turn = turn_of(said, number, generation, asked)
        # Of two squeezes with the same bytes the first counts.
        found = history.squeeze_of(turn)
        assert found is not None
        yield Asked(asked, history.squeezed(found).at(generation), turn)
        history = history.after(turn)


def turns_of(config: Config, story: Iterable[Said]) -> list[Turn]:
    return [asked.turn for asked in play(config, story)]


def messages_before_closing(request: Request) -> str:
    """The body up to the end of its messages."""
    return request.body[: request.body.rindex('],"model"')]


def alternate(messages: list[dict[str, object]]) -> None:
    """Raise AssertionError where a chat template of Mistral's would raise (see core/telling.py)."""
    assert messages[0]["role"] == "system"
    index = 0
    for message in messages[1:]:
        if message["role"] == "user" or (
            message["role"] == "assistant" and not message.get("tool_calls")
        ):
            assert (message["role"] == "user") == (index % 2 == 0), "roles do not alternate"
            index += 1


def messages(request: Request) -> list[dict[str, object]]:
    parsed: list[dict[str, object]] = json.loads(request.body)["messages"]
    return parsed


def calls_during(act: Callable[[], object]) -> int:
    """How many functions an act calls, those of the interpreter included: its work, without its time."""
    count = 0

    def seen(_frame: object, event: str, _what: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


VERDICTS = st.sampled_from(
    [Verdict.CALLS] * 6 + [Verdict.TEXT, Verdict.EMPTY, Verdict.MALFORMED, Verdict.UNKNOWN_TOOL]
)


def said(*, largest: int = 9000, squeezes: bool = True) -> st.SearchStrategy[Said]:
    """Any turn whose results have at most so many bytes each."""
    sizes = st.one_of(st.integers(0, 300), st.integers(0, largest))
    arguments = st.one_of(st.integers(0, 300), st.integers(0, largest // 4))
    rarely = st.sampled_from([False] * 7 + [True])
    return st.builds(
        Said,
        verdict=VERDICTS,
        text=st.one_of(st.just(0), st.integers(0, largest // 4)),
        calls=st.lists(st.tuples(arguments, sizes), min_size=1, max_size=3).map(tuple),
        letter=st.sampled_from(["x", "é", '"', "\n"]),
        counted=st.booleans(),
        elsewhere=rarely,
        lost=rarely,
        squeeze=st.sampled_from([0] * 10 + [1, 2]) if squeezes else st.just(0),
    )


def stories(**bounds: object) -> st.SearchStrategy[list[Said]]:
    return st.lists(said(**bounds), max_size=25)  # type: ignore[arg-type]
