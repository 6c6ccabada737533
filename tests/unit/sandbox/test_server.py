"""The server's API, in a real process, with a runner that plays a script."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import (
    Cancel,
    Diff,
    Digest,
    Digests,
    Error,
    File,
    Meta,
    Outcome,
    Patch,
    Read,
    Result,
)

from tests.unit.sandbox.servers import (
    UID,
    Http,
    ScriptedRunner,
    ServerProcess,
    eventually,
    running_server,
)

KEY = f"{UID}/1/0"
BASE = "a" * 40


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, Http]]:
    async with running_server(tmp_path) as pair:
        yield pair


@pytest.fixture
def server(pair: tuple[ServerProcess, Http]) -> ServerProcess:
    return pair[0]


@pytest.fixture
def http(pair: tuple[ServerProcess, Http]) -> Http:
    return pair[1]


@pytest.fixture
async def runner(server: ServerProcess) -> AsyncIterator[ScriptedRunner]:
    runner = ScriptedRunner(server)
    await runner.join()
    yield runner
    await runner.leave()


# --- a call's way ---


async def test_a_call_is_run_and_its_record_answered(http: Http, runner: ScriptedRunner) -> None:
    asked = asyncio.create_task(http.put(KEY, "echo hi", wait=10))
    await runner.was_given(KEY)
    runner.say(Result(KEY, Outcome.FAILED, "hi", Meta(exit_code=3, duration_ms=5)))
    status, record = await asked
    assert status == 200
    assert record == {
        "key": KEY,
        "tool": "bash",
        "digest": http.order("echo hi")["digest"],
        "state": "Finished",
        "outcome": "Failed",
        "content": "hi",
        "meta": {
            "exitCode": 3, "truncated": False, "spill": None, "durationMs": 5,
            "before": None, "after": None, "notUtf8": False,
        },
        "shell": "shell-1",
    }  # fmt: skip
    assert await http.get(KEY) == (200, record)
    await runner.was_told(protocol.Ack(KEY))


async def test_without_wait_the_record_says_reserved(http: Http, runner: ScriptedRunner) -> None:
    status, record = await http.put(KEY)
    assert (status, record["state"], record["outcome"]) == (200, "Reserved", None)
    assert (await http.info())["reserved"] == [KEY]


async def test_the_wait_ends_when_its_time_is_over(http: Http, runner: ScriptedRunner) -> None:
    _, record = await http.put(KEY, wait=0.1)
    assert record["state"] == "Reserved"


async def test_a_poll_is_answered_as_soon_as_the_call_ends(
    http: Http, runner: ScriptedRunner
) -> None:
    await http.put(KEY)
    polls = [asyncio.create_task(http.get(KEY, wait=20)) for _ in range(5)]
    await runner.was_given(KEY)
    runner.finish(KEY, "done")
    assert {(await poll)[1]["content"] for poll in polls} == {"done"}


async def test_the_same_key_sent_a_hundred_times_at_once_runs_once(
    server: ServerProcess, http: Http
) -> None:
    runner = ScriptedRunner(server, auto=Outcome.OK)
    await runner.join()
    answers = await asyncio.gather(*(http.put(KEY, wait=20) for _ in range(100)))
    assert {(status, record["outcome"]) for status, record in answers} == {(200, "Ok")}
    assert runner.runs == [KEY]
    await runner.leave()


async def test_a_checked_tool_sent_many_times_at_once_runs_once_too(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    runner.file_digest = "sha256:" + "1" * 64
    answers = await asyncio.gather(
        *(http.put(KEY, "a.py", tool="search_replace") for _ in range(10))
    )
    assert {record["meta"]["before"] for _, record in answers} == {"sha256:" + "1" * 64}
    await runner.was_given(KEY)
    assert runner.runs == [KEY]


async def test_the_same_key_with_another_digest_is_a_conflict(
    http: Http, runner: ScriptedRunner
) -> None:
    await http.put(KEY, "one")
    status, body = await http.put(KEY, "two")
    assert (status, body["code"]) == (409, "conflict")
    await runner.was_given(KEY)
    assert runner.runs == [KEY]


async def test_a_re_run_is_a_key_of_its_own(http: Http, runner: ScriptedRunner) -> None:
    await http.put(KEY)
    await http.put(KEY + "/r1")
    await runner.was_given(KEY + "/r1")
    assert runner.runs == [KEY, KEY + "/r1"]


async def test_an_absent_key_is_told_apart(http: Http) -> None:
    status, body = await http.get(KEY)
    assert (status, body["code"]) == (404, "absent")


async def test_cancel_answers_when_the_call_was_killed(http: Http, runner: ScriptedRunner) -> None:
    await http.put(KEY)
    fence = {"epoch": 1, "ledger": http.ledger}
    asked = asyncio.create_task(http.ask("POST", f"/v1/calls/{KEY}/cancel", json=fence))
    await runner.was_told(Cancel(KEY))
    runner.finish(KEY, "half", Outcome.KILLED)
    status, record = await asked
    assert (status, record["outcome"], record["content"]) == (200, "Killed", "half")
    status, again = await http.ask("POST", f"/v1/calls/{KEY}/cancel", json=fence)
    assert again == record


async def test_cancel_of_a_call_never_seen_is_absent(http: Http) -> None:
    fence = {"epoch": 1, "ledger": http.ledger}
    status, body = await http.ask("POST", f"/v1/calls/{KEY}/cancel", json=fence)
    assert (status, body["code"]) == (404, "absent")


# --- who may ask ---


async def test_without_the_token_nothing_is_answered(http: Http) -> None:
    for method, path in [
        ("GET", "/v1/info"), ("PUT", "/v1/epoch"), ("GET", "/v1/diff"), ("GET", "/v1/nowhere"),
        ("PUT", f"/v1/calls/{KEY}"), ("GET", "/v1/files/a"), ("POST", f"/v1/calls/{KEY}/cancel"),
    ]:  # fmt: skip
        for token in ("", "wrong", "ö"):
            status, body = await http.ask(method, path, token=token)
            assert (status, body["code"]) == (401, "unauthorized"), path


async def test_a_lower_epoch_is_refused_and_a_higher_one_remembered(
    http: Http, runner: ScriptedRunner
) -> None:
    fence = {"epoch": 5, "ledger": http.ledger}
    assert await http.ask("PUT", "/v1/epoch", json=fence) == (200, {"epoch": 5})
    assert await http.ask("PUT", "/v1/epoch", json=fence) == (200, {"epoch": 5})
    http.epoch = 4
    for status, body in (
        await http.put(KEY),
        await http.get(KEY),
        await http.ask("PUT", "/v1/epoch", json={**fence, "epoch": 4}),
        await http.ask("POST", f"/v1/calls/{KEY}/cancel", json={**fence, "epoch": 4}),
    ):
        assert (status, body["code"], body["epoch"]) == (409, "stale_epoch", 5)
    http.epoch = 6
    await http.put(KEY)
    assert (await http.info())["epoch"] == 6


async def test_another_ledger_is_refused(http: Http, runner: ScriptedRunner) -> None:
    ours, http.ledger = http.ledger, "another"
    for status, body in (await http.put(KEY), await http.get(KEY)):
        assert (status, body["code"], body["ledger"]) == (409, "wrong_ledger", ours)
    assert runner.runs == []


async def test_a_call_of_another_task_is_refused(http: Http, runner: ScriptedRunner) -> None:
    status, body = await http.put("11111111-5555-4444-8888-121212121212/1/0")
    assert (status, body["code"]) == (400, "bad_request") and "another task" in body["message"]


WRONG: list[tuple[dict[str, object], str]] = [
    ({"digest": "sha256:" + "0" * 64}, "bad_digest"),
    ({"arguments": "[]"}, "bad_request"),
    ({"arguments": "{"}, "bad_request"),
    ({"arguments": {"command": "x"}}, "bad_request"),
    ({"arguments": '"' + "x" * 70_000 + '"'}, "too_large"),
    ({"tool": "\ud800"}, "bad_request"),
    ({"tool": None}, "bad_request"),
    ({"epoch": "one"}, "bad_request"),
    ({"epoch": -1}, "bad_request"),
    ({"epoch": True}, "bad_request"),
    ({"hardTimeoutSeconds": 0}, "bad_request"),
    ({"softTimeoutSeconds": "soon"}, "bad_request"),
]


async def test_a_wrong_request_is_refused_and_runs_nothing(
    http: Http, runner: ScriptedRunner
) -> None:
    for change, code in WRONG:
        _, body = await http.ask("PUT", f"/v1/calls/{KEY}", json={**http.order(), **change})
        assert body["code"] == code, change
        assert (await http.get(KEY))[0] == 404, change


NONSENSE = [
    ("PUT", f"/v1/calls/{KEY}", b"{"),
    ("PUT", f"/v1/calls/{KEY}", b"\xff"),
    ("PUT", f"/v1/calls/{KEY}", b"[" * 50_000),
    ("PUT", f"/v1/calls/{KEY}?wait=26", b"{}"),
    ("PUT", f"/v1/calls/{KEY}?wait=nan", b"{}"),
    ("PUT", f"/v1/calls/{KEY}", b" " * 600_000),
    ("PUT", "/v1/calls/x/0/0", b"{}"),
    ("GET", "/v1/nowhere", b""),
    ("DELETE", f"/v1/calls/{KEY}", b""),
]


async def test_nonsense_gets_a_code_and_a_sentence(http: Http) -> None:
    for method, path, body in NONSENSE:
        status, answer = await http.ask(method, path, data=body)
        assert 400 <= status < 500, path
        assert answer["code"] in ("bad_request", "too_large") and answer["message"], path


# --- the runner's side ---


async def test_without_a_runner_nothing_is_reserved(http: Http) -> None:
    status, body = await http.put(KEY)
    assert (status, body["code"]) == (503, "runner_away")
    assert (await http.get(KEY))[0] == 404
    assert (await http.ask("GET", "/v1/diff"))[0] == 503


async def test_health_needs_no_token_and_follows_the_runner(
    server: ServerProcess, http: Http
) -> None:
    status, body = await http.ask("GET", "/v1/health", token="")
    assert status == 503 and "no runner" in body["reason"]
    runner = ScriptedRunner(server)
    await runner.join()
    assert await http.ask("GET", "/v1/health", token="") == (200, {"ready": True})
    await runner.leave()


async def test_a_wrong_word_is_refused(server: ServerProcess, runner: ScriptedRunner) -> None:
    forger = ScriptedRunner(server, "forger")
    await forger.dial(word="0" * 64)
    await forger.was_closed()
    assert forger.got == [] and not runner.closed


async def test_a_word_is_good_for_one_hello(server: ServerProcess) -> None:
    word = server.word.read_text()
    first, second = ScriptedRunner(server, "one"), ScriptedRunner(server, "two")
    await first.join()
    assert server.word.read_text() != word
    await second.dial(word=word)
    await second.was_closed()
    assert second.got == [] and not first.closed
    await first.leave()


async def test_a_newer_runner_with_the_right_word_replaces_the_older(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    newer = ScriptedRunner(server, "shell-2")
    await newer.join()
    await runner.was_closed()
    assert (await http.info())["runner"] == {"connected": True, "shell": "shell-2"}
    await newer.leave()


async def test_a_new_runner_makes_the_old_ones_calls_unknown(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    await http.put(KEY)
    poll = asyncio.create_task(http.get(KEY, wait=20))
    newer = ScriptedRunner(server, "shell-2")
    await newer.join()
    assert (await poll)[1]["outcome"] == "Unknown"
    assert newer.runs == []
    newer.finish(KEY, "forged")
    newer.finish(f"{UID}/9/9", "forged")
    assert (await http.get(KEY))[1]["content"] == ""
    await newer.leave()


async def test_the_same_runner_dialling_again_keeps_what_it_runs(
    http: Http, runner: ScriptedRunner
) -> None:
    lost = f"{UID}/1/1"
    for key in (KEY, lost):
        await http.put(key)
        await runner.was_given(key)
    await runner.leave()
    await runner.join(running=(KEY,))
    assert (await http.get(KEY))[1]["state"] == "Reserved"
    assert (await http.get(lost))[1]["outcome"] == "Unknown"
    runner.finish(KEY, "late")
    assert (await http.get(KEY, wait=10))[1]["content"] == "late"
    assert runner.runs == [KEY, lost]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\xfd\n",
        b"not json\n",
        b'{"type": "result", "key": "' + KEY.encode() + b'", "outcome": "Great"}\n',
        b"[" * 100_000 + b"\n",
        b"x" * (protocol.LINE_LIMIT + 2),
    ],
    ids=["bad UTF-8", "not JSON", "bad outcome", "deep", "endless"],
)
async def test_a_bad_line_costs_the_runner_its_connection_and_nothing_else(
    http: Http, runner: ScriptedRunner, line: bytes
) -> None:
    await http.put(KEY)
    runner.say_raw(line)
    await runner.was_closed()
    await runner.leave()
    await runner.join(running=(KEY,))
    runner.finish(KEY)
    assert (await http.get(KEY, wait=10))[1]["outcome"] == "Ok"


async def test_a_torn_line_is_not_a_result(http: Http, runner: ScriptedRunner) -> None:
    await http.put(KEY)
    runner.say_raw(protocol.encode(Result(KEY, Outcome.OK, "whole"))[:-1])
    await runner.leave()
    await runner.join(running=(KEY,))
    assert (await http.get(KEY))[1]["state"] == "Reserved"


async def test_a_stranger_gets_little_memory(server: ServerProcess, http: Http) -> None:
    stranger = ScriptedRunner(server)
    await stranger.dial(word="x" * (2 * protocol.HELLO_LIMIT))
    await stranger.was_closed()
    assert await http.info()


async def test_results_for_keys_never_handed_out_are_ignored(
    http: Http, runner: ScriptedRunner
) -> None:
    await http.put(KEY)
    runner.finish(f"{UID}/1/7")
    runner.finish("no key at all")
    runner.finish(KEY)
    assert (await http.get(KEY, wait=10))[1]["outcome"] == "Ok"
    assert (await http.get(f"{UID}/1/7"))[0] == 404


async def test_content_is_cut_and_meta_bounded(http: Http, runner: ScriptedRunner) -> None:
    await http.put(KEY)
    meta = Meta(spill="s" * 9999, before="forged", after="sha256:" + "2" * 64, duration_ms=-1)
    runner.say(Result(KEY, Outcome.OK, "ä" * protocol.CONTENT_LIMIT, meta))
    _, record = await http.get(KEY, wait=10)
    assert len(record["content"].encode()) <= protocol.CONTENT_LIMIT
    assert "bytes left out" in record["content"]
    assert record["meta"] == {
        "exitCode": None, "truncated": True, "spill": "s" * protocol.PATH_LIMIT, "durationMs": 0,
        "before": None, "after": "sha256:" + "2" * 64, "notUtf8": False,
    }  # fmt: skip


# --- what is asked of the runner ---


async def test_the_diff_is_passed_on_with_a_digest_of_our_own(
    http: Http, runner: ScriptedRunner
) -> None:
    asked = asyncio.create_task(http.ask("GET", "/v1/diff"))
    await runner.was_told(Diff("1"))
    patch = base64.b64encode(b"diff").decode()
    runner.say(Patch("7", BASE, patch, 4, "of another question"))
    runner.say(Patch("1", BASE, patch, 999, "a lie"))
    digest = hashlib.sha256(b"diff").hexdigest()
    assert await asked == (
        200, {"base": BASE, "patch": patch, "size": 4, "sha256": digest, "upstream": ""}
    )  # fmt: skip


async def test_too_large_a_diff_is_said_with_its_size(http: Http, runner: ScriptedRunner) -> None:
    asked = asyncio.create_task(http.ask("GET", "/v1/diff"))
    await runner.was_told(Diff("1"))
    runner.say(Error("1", "too_large", "the patch has 9000000 bytes", 9_000_000))
    status, body = await asked
    assert (status, body["code"], body["size"]) == (413, "too_large", 9_000_000)


async def test_nonsense_instead_of_a_diff_is_called_so(http: Http, runner: ScriptedRunner) -> None:
    asked = asyncio.create_task(http.ask("GET", "/v1/diff"))
    await runner.was_told(Diff("1"))
    runner.say(Patch("1", BASE, "***", 3, ""))
    status, body = await asked
    assert (status, body["code"]) == (502, "bad_runner")


async def test_a_file_is_read_through_the_runner(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    async def read() -> bytes:
        token = {"Authorization": f"Bearer {server.identity.token}"}
        url = f"https://127.0.0.1:{server.port}/v1/files/src/ä%20b.py"
        async with (
            aiohttp.ClientSession(headers=token) as session,
            session.get(url, ssl=False) as answer,
        ):
            return await answer.read()

    asked = asyncio.create_task(read())
    await runner.was_told(Read("1", "src/ä b.py"))
    runner.say(File("1", base64.b64encode(b"\x00\xff").decode()))
    assert await asked == b"\x00\xff"


@pytest.mark.parametrize(
    ("code", "status"), [("not_found", 404), ("bad_path", 400), ("failed", 500), ("odd", 500)]
)
async def test_what_the_runner_cannot_read_is_said(
    http: Http, runner: ScriptedRunner, code: str, status: int
) -> None:
    asked = asyncio.create_task(http.ask("GET", "/v1/files/a"))
    await runner.was_told(Read("1", "a"))
    runner.say(Error("1", code, "why"))
    got, body = await asked
    assert (got, body["message"]) == (status, "why")


async def test_the_digest_of_a_file_is_asked_of_the_runner(
    http: Http, runner: ScriptedRunner
) -> None:
    asked = asyncio.create_task(http.ask("GET", "/v1/digests/a.py"))
    await runner.was_told(Digest("1", "a.py"))
    runner.say(Digests("1", None))
    assert await asked == (200, {"digest": None})


async def test_a_question_ends_when_the_runner_goes(http: Http, runner: ScriptedRunner) -> None:
    asked = asyncio.create_task(http.put(KEY, "a.py", tool="search_replace"))
    await runner.was_told(Digest("1", "a.py"))
    await runner.leave()
    status, body = await asked
    assert (status, body["code"]) == (503, "runner_away")
    assert (await http.get(KEY))[0] == 404


# --- being killed ---


async def test_killed_after_a_reservation_the_runner_tells_what_became_of_it(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    running, finished, lost = (f"{UID}/1/{i}" for i in range(3))
    for key in (running, finished, lost):
        await http.put(key)
        await runner.was_given(key)
    before = await http.info()
    await server.restart()
    after = await http.info()
    assert (after["ledger"], after["reserved"]) == (before["ledger"], [running, finished, lost])
    assert after["boot"] != before["boot"]
    await runner.leave()
    await runner.join(running=(running,), finished=(finished,))
    await runner.was_told(protocol.Resend(finished))
    runner.finish(finished, "kept by the runner")
    assert (await http.get(finished, wait=10))[1]["content"] == "kept by the runner"
    assert (await http.get(lost))[1]["outcome"] == "Unknown"
    assert (await http.get(running))[1]["state"] == "Reserved"
    assert runner.runs == [running, finished, lost], "nothing was handed over a second time"


async def test_killed_after_a_result_the_record_is_still_there(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    await http.put(KEY)
    await runner.was_given(KEY)
    runner.finish(KEY, "done")
    _, record = await http.get(KEY, wait=10)
    await server.restart()
    assert await http.get(KEY) == (200, record)
    await runner.leave()
    await runner.join(finished=(KEY,))
    await runner.was_told(protocol.Ack(KEY))
    assert await http.put(KEY, wait=10) == (200, record)
    assert runner.runs == [KEY]


async def test_killed_with_the_runner_the_open_calls_are_unknown(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    await http.put(KEY)
    await server.restart()
    assert (await http.get(KEY))[1]["state"] == "Reserved", "nobody has told yet"
    newer = ScriptedRunner(server, "shell-2")
    await newer.join()
    _, record = await http.put(KEY, wait=10)
    assert record["outcome"] == "Unknown" and newer.runs == []
    await newer.leave()


async def test_killed_at_random_moments_no_call_runs_twice(
    server: ServerProcess, http: Http
) -> None:
    runner = ScriptedRunner(server, auto=Outcome.OK)
    keys = [f"{UID}/{turn}/0" for turn in range(1, 31)]
    for number, key in enumerate(keys):
        await runner.leave()
        await runner.join()
        asked = asyncio.create_task(http.put(key, wait=5))
        if number % 10 == 0:
            await runner.was_given(key)
            await server.restart()
            await asyncio.gather(asked, return_exceptions=True)
            await runner.leave()
            await runner.join()
        else:
            await asked
        assert (await http.get(key))[1]["outcome"] in ("Ok", "Unknown")
    assert sorted(runner.runs) == sorted(keys)


async def test_sigterm_answers_who_waits_and_ends_cleanly(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    await http.put(KEY)
    sent = http.sent
    poll = asyncio.create_task(http.get(KEY, wait=25))
    await eventually(lambda: http.sent > sent, "the poll was sent")
    await http.info()  # the server reads in order: it has the poll when it answers this
    code = await asyncio.to_thread(server.end, signal.SIGTERM)
    assert code == 0
    assert (await poll)[1]["state"] == "Reserved"


async def test_neither_token_nor_arguments_are_logged(
    server: ServerProcess, http: Http, runner: ScriptedRunner
) -> None:
    await http.put(KEY, "echo very-private")
    await runner.was_given(KEY)
    runner.finish(KEY, "also-private")
    await http.get(KEY, wait=10)
    await http.put(KEY, "echo very-private too")
    await http.ask("GET", "/v1/info", token="guess-private")
    word = server.word.read_text()
    await asyncio.to_thread(server.end, signal.SIGTERM)
    log = server.log.read_text()
    assert "serving task" in log
    for secret in ("private", server.identity.token, word):
        assert secret not in log
