"""Failpoints of server and runner: each strikes where its name says, and what is then on disk."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from ratchet_sandbox import failpoints
from ratchet_sandbox.failpoints import DROPPABLE, VARIABLE, Armed, Dropped, Fault, Point, parse
from ratchet_sandbox.protocol import Ack, Outcome

from tests.unit.sandbox.servers import (
    UID,
    Http,
    ScriptedRunner,
    ServerProcess,
    eventually,
    running_server,
)
from tests.unit.sandbox.test_runner import RunnerProcess, Sandbox

KEY = f"{UID}/1/0"


@asynccontextmanager
async def armed_server(
    folder: Path, failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[ServerProcess, Http]]:
    """A server whose first process has a failpoint, and a client that sends each request once."""
    monkeypatch.setenv(VARIABLE, failpoint)
    async with running_server(folder) as (server, http):
        monkeypatch.delenv(VARIABLE)
        # aiohttp sends a GET or PUT whose connection was cut again by itself, unless told so.
        http.session._retry_connection = False
        yield server, http


async def cut_off(http: Http) -> None:
    """Submit the call; the connection ends without an answer."""
    with pytest.raises(aiohttp.ClientError):
        await http.put(KEY, wait=10)


@pytest.mark.parametrize(
    ("point", "handed_over", "found"),
    [
        (Point.RESERVING, False, "absent"),
        (Point.RESERVED, False, "Reserved"),
        (Point.HANDED_OVER, True, "Reserved"),
        (Point.RESULT_RECEIVED, True, "Reserved"),
        (Point.RESULT_STORED, True, "Finished"),
        (Point.ANSWERING, True, "Finished"),
    ],
)
async def test_a_server_killed_at_a_point_has_this_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Point, handed_over: bool, found: str
) -> None:
    async with armed_server(tmp_path, f"{point}=kill", monkeypatch) as (server, http):
        runner = ScriptedRunner(server, auto=Outcome.OK)
        await runner.join()
        await cut_off(http)
        await eventually(lambda: runner.closed, "the runner lost its connection")
        assert runner.runs == ([KEY] if handed_over else [])
        acknowledged = Ack(KEY) in runner.got
        assert acknowledged == (point is Point.ANSWERING)
        await server.restart()
        _, record = await http.get(KEY)
        assert record.get("state", record.get("code")) == found
    assert f"failpoint {point} kill" in server.log.read_text().splitlines()


async def test_a_server_killed_after_it_raised_the_epoch_has_it_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with armed_server(tmp_path, "epoch-raised=kill", monkeypatch) as (server, http):
        with pytest.raises(aiohttp.ClientError):
            await http.ask("PUT", "/v1/epoch", json={"epoch": 7, "ledger": http.ledger})
        await server.restart()
        assert (await http.info())["epoch"] == 7


@pytest.mark.parametrize("point", sorted(DROPPABLE - {Point.EPOCH_RAISED}))
async def test_a_dropped_submission_is_answered_when_it_comes_again_and_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    async with armed_server(tmp_path, f"{point}=drop", monkeypatch) as (server, http):
        runner = ScriptedRunner(server, auto=Outcome.OK)
        await runner.join()
        await cut_off(http)
        assert (await http.put(KEY, wait=10))[1]["outcome"] == "Ok"
        assert runner.runs == [KEY]


async def test_a_dropped_epoch_is_raised_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with armed_server(tmp_path, "epoch-raised=drop", monkeypatch) as (_, http):
        with pytest.raises(aiohttp.ClientError):
            await http.ask("PUT", "/v1/epoch", json={"epoch": 7, "ledger": http.ledger})
        assert (await http.info())["epoch"] == 7


async def test_a_stopped_server_goes_on_where_it_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with armed_server(tmp_path, "reserved=stop", monkeypatch) as (server, http):
        runner = ScriptedRunner(server, auto=Outcome.OK)
        await runner.join()
        assert server._process
        pid = server._process.pid
        asked = asyncio.create_task(http.put(KEY, wait=10))
        await eventually(lambda: state_of(pid) == "T", "the server stands still")
        assert not runner.runs
        os.kill(pid, signal.SIGCONT)
        assert (await asked)[1]["outcome"] == "Ok"


@asynccontextmanager
async def armed_runner(
    folder: Path, failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sandbox]:
    """A server without a failpoint, and a runner whose first process has one."""
    (folder / "server").mkdir()
    async with running_server(folder / "server") as (server, http):
        runner = RunnerProcess(server, folder)
        monkeypatch.setenv(VARIABLE, failpoint)
        runner.start()
        monkeypatch.delenv(VARIABLE)
        try:
            sandbox = Sandbox(server, http, runner)
            await sandbox.connected()
            yield sandbox
        finally:
            runner.stop()


@pytest.mark.parametrize(
    ("point", "effects", "outcome"),
    [
        (Point.CALL_RECEIVED, 0, "Unknown"),
        (Point.EFFECT_DONE, 1, "Unknown"),
        (Point.RESULT_KEPT, 1, "Unknown"),
        (Point.RESULT_SENT, 1, "Ok"),
    ],
)
async def test_a_runner_killed_at_a_point_leaves_this_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Point, effects: int, outcome: str
) -> None:
    async with armed_runner(tmp_path, f"{point}=kill", monkeypatch) as sandbox:
        await sandbox.submit("bash", command="echo line >> ran", wait=0)
        process = sandbox.runner._process
        assert process is not None
        assert await asyncio.to_thread(process.wait, 10) == -signal.SIGKILL
        sandbox.runner.start()
        record = await sandbox.finished(KEY)
        ran = sandbox.workspace("ran")
        assert record["outcome"] == outcome
        assert (ran.read_text() if ran.exists() else "") == "line\n" * effects
    assert f"failpoint {point} kill" in sandbox.runner.log.read_text().splitlines()


async def test_a_stopped_runner_goes_on_where_it_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with armed_runner(tmp_path, "result-kept=stop", monkeypatch) as sandbox:
        process = sandbox.runner._process
        assert process is not None
        await sandbox.submit("bash", command="echo line >> ran", wait=0)
        await eventually(lambda: state_of(process.pid) == "T", "the runner stands still")
        assert sandbox.workspace("ran").read_text() == "line\n"
        assert (await sandbox.http.get(KEY))[1]["state"] == "Reserved"
        process.send_signal(signal.SIGCONT)
        assert (await sandbox.finished(KEY))["outcome"] == "Ok"


def state_of(pid: int) -> str:
    """The state of a process in one letter (proc(5)); T: stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# --- what is written in the variable ---


def test_a_strike_waits_for_the_time_that_it_was_given_and_strikes_once() -> None:
    armed = Armed(parse("answering=drop@2"))
    armed.reach(Point.ANSWERING)
    armed.reach(Point.EPOCH_RAISED)
    with pytest.raises(Dropped):
        armed.reach(Point.ANSWERING)
    armed.reach(Point.ANSWERING)


def test_two_strikes_at_one_point_strike_one_after_the_other() -> None:
    armed = Armed(parse("answering=drop,answering=drop@2"))
    for _ in range(2):
        with pytest.raises(Dropped):
            armed.reach(Point.ANSWERING)
    armed.reach(Point.ANSWERING)


def test_many_are_joined_by_commas() -> None:
    strikes = parse("reserved=kill, answering=stop@3")
    assert [(s.point, s.fault, s.left) for s in strikes] == [
        (Point.RESERVED, Fault.KILL, 1),
        (Point.ANSWERING, Fault.STOP, 3),
    ]


@pytest.mark.parametrize(
    "text", ["reserved", "nowhere=kill", "reserved=burn", "reserved=kill@0", "reserved=drop", ""]
)
def test_what_means_nothing_is_refused_with_the_variable_s_name(text: str) -> None:
    with pytest.raises(ValueError, match=VARIABLE):
        parse(text)


def test_without_the_variable_nothing_is_armed_and_a_point_costs_next_to_nothing() -> None:
    assert failpoints._armed is None
    began = time.perf_counter()
    for _ in range(10_000):
        failpoints.reach(Point.RESERVED)
    assert time.perf_counter() - began < 0.5
