"""The codec of the messages between server and runner."""

from __future__ import annotations

import json
import random
from typing import get_args

import pytest
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import (
    Cancel,
    Diff,
    Digest,
    Digests,
    Error,
    File,
    FromRunner,
    FromServer,
    Hello,
    Meta,
    Outcome,
    Patch,
    ProtocolError,
    Read,
    Resend,
    Result,
    Run,
    Started,
    Welcome,
    clean,
    clip,
    decode_from_runner,
    decode_from_server,
    encode,
    is_key,
)

FROM_RUNNER: list[FromRunner] = [
    Hello("word", 1, "shell-1", ("u/1/0",), ("u/2/0/r1",)),
    Started("u/1/0"),
    Result("u/1/0", Outcome.OK, "text €", Meta(exit_code=0, spill="a", duration_ms=3)),
    Digests("1", None),
    Digests("1", "sha256:" + "0" * 64),
    Patch("2", "a" * 40, "AAAA", 3, "b" * 64),
    File("3", "AAAA"),
    Error("4", "too_large", "it has 9 bytes", 9),
]
FROM_SERVER: list[FromServer] = [
    Welcome(),
    Run("u/1/0", "bash", {"command": "true"}, 30.0, 300.0),
    Cancel("u/1/0"),
    protocol.Ack("u/1/0"),
    Digest("1", "a.py"),
    Diff("2"),
    Read("3", "a.py"),
    Resend("u/1/0"),
]


@pytest.mark.parametrize("message", FROM_RUNNER, ids=lambda m: type(m).__name__)
def test_a_runners_message_comes_out_as_it_went_in(message: FromRunner) -> None:
    assert decode_from_runner(encode(message)) == message


@pytest.mark.parametrize("message", FROM_SERVER, ids=lambda m: type(m).__name__)
def test_a_servers_message_comes_out_as_it_went_in(message: FromServer) -> None:
    assert decode_from_server(encode(message)) == message


def test_every_message_is_tried_here() -> None:
    assert {type(m) for m in FROM_RUNNER} == set(get_args(FromRunner))
    assert {type(m) for m in FROM_SERVER} == set(get_args(FromServer))


def test_a_message_is_one_line_of_json_with_camel_case_names() -> None:
    line = encode(Run("u/1/0", "bash", {"command": "echo 'a\nb'"}, 30, 300))
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert json.loads(line) == {
        "type": "run",
        "key": "u/1/0",
        "tool": "bash",
        "arguments": {"command": "echo 'a\nb'"},
        "softTimeoutSeconds": 30,
        "hardTimeoutSeconds": 300,
    }


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'"hello"',
        b'{"type": "unheard_of"}',
        b'{"type": ["result"]}',
        b'{"type": "run", "key": "u/1/0"}',
        b'{"type": "result"}',
        b'{"type": "result", "key": 1, "outcome": "Ok", "content": ""}',
        b'{"type": "result", "key": "u/1/0", "outcome": "Splendid", "content": ""}',
        b'{"type": "result", "key": "u/1/0", "outcome": "Ok", "content": null}',
        b'{"type": "result", "key": "u/1/0", "outcome": "Ok", "content": "", "meta": []}',
        b'{"type": "result", "key": "u/1/0", "outcome": "Ok", "content": "",'
        b' "meta": {"exitCode": true}}',
        b'{"type": "result", "key": "u/1/0", "outcome": "Ok", "content": "",'
        b' "meta": {"exitCode": 1e99}}',
        b'{"type": "patch", "id": "1", "base": "", "patch": "", "sha256": "",'
        b' "size": 99999999999999999999}',
        b'{"type": "hello", "word": "w", "protocol": 1, "shell": "s", "running": ["no key"]}',
        b'{"type": "hello", "word": "w", "protocol": 1, "shell": "s", "running": "u/1/0"}',
        b"[" * 100_000,
        b'{"type": "error", "id": "1", "code": "c", "message": "m", "size": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda line: repr(line[:60]),
)
def test_a_line_that_is_no_message_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_from_runner(line)


def test_a_runner_may_not_say_that_an_outcome_is_unknown() -> None:
    line = encode(Result("u/1/0", Outcome.OK, "")).replace(b'"Ok"', b'"Unknown"')
    with pytest.raises(ProtocolError):
        decode_from_runner(line)


def test_noise_never_raises_anything_but_a_protocol_error() -> None:
    dice = random.Random(7)
    good = encode(FROM_RUNNER[2])
    for _ in range(3000):
        line = bytearray(good)
        for _ in range(dice.randrange(1, 6)):
            line[dice.randrange(len(line))] = dice.randrange(256)
        try:
            decode_from_runner(bytes(line))
        except ProtocolError:
            continue


def test_too_long_a_message_is_refused_on_both_sides() -> None:
    with pytest.raises(ProtocolError, match="over"):
        encode(File("1", "A" * protocol.LINE_LIMIT))
    with pytest.raises(ProtocolError, match="over"):
        decode_from_runner(b" " * (protocol.LINE_LIMIT + 1))


def test_the_largest_patch_fits_into_a_line() -> None:
    base64_size = (protocol.PATCH_LIMIT + 2) // 3 * 4
    assert len(encode(Patch("1", "a" * 64, "A" * base64_size, 1, "b" * 64))) < protocol.LINE_LIMIT


def test_text_that_utf_8_cannot_hold_is_replaced() -> None:
    assert clean("a\ud800b") == "a\ufffdb"
    assert clean("\ud83d\ude00") == "😀"
    line = encode(Result("u/1/0", Outcome.OK, "x")).replace(b'"x"', rb'"\ud800"')
    result = decode_from_runner(line)
    assert isinstance(result, Result) and result.content == "\ufffd"
    assert encode(Run("u/1/0", "bash", {"command": "\udfff"}, 1, 1)).decode()


def test_unknown_members_are_ignored_so_that_one_side_may_be_newer() -> None:
    line = b'{"type": "started", "key": "u/1/0", "mood": "good"}'
    assert decode_from_runner(line) == Started("u/1/0")


def test_clipping_keeps_head_and_tail_within_the_limit() -> None:
    assert clip("short", 100, "[{cut}]") == ("short", False)
    text, cut = clip("a" * 500 + "é" * 500, 200, "[{cut} bytes cut]")
    assert cut and len(text.encode()) <= 200
    assert text.startswith("aaa") and text.endswith("ééé")
    kept = text.replace("[", "]").split("]")
    assert int(kept[1].split()[0]) == 1500 - len((kept[0] + kept[2]).encode())


@pytest.mark.parametrize("key", ["u/1/0", "0f3c-9a/12/31/r2"])
def test_a_key_names_task_turn_and_index(key: str) -> None:
    assert is_key(key)


@pytest.mark.parametrize(
    "key", ["", "u", "u/0/0", "u/1", "u/1/0/", "u/1/0/r0", "u/1/-1", "../1/0", "u/1/00", "u/1/0\n"]
)
def test_anything_else_is_no_key(key: str) -> None:
    assert not is_key(key)
