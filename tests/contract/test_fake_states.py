"""The fake gets into the states of the recorded SGLang, and out of them, in the recorded order."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.contract.wire import Json, chat, fake_that_says, get, recording, send

FAKE = Path(__file__).parents[2] / "inference" / "fake"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def load_of(answer: Json) -> tuple[int, int, int]:
    rank = answer["body"]["loads"][0]
    return rank["num_running_reqs"], rank["num_waiting_reqs"], rank["num_used_tokens"]


async def test_pause_and_continue_leave_the_server_unready_until_one_health_check_passes(
    http: aiohttp.ClientSession,
) -> None:
    steps = recording("pause/pause_and_continue")["exchanges"]
    health_took_s = steps[2]["timing"]["total_s"]
    assert health_took_s == pytest.approx(20, abs=0.1)

    async with fake_that_says({}, health_timeout_s=0.2, health_delay_s=0.05) as fake:
        assert fake.settings.health_timeout_s == 0.2
        for step in steps:
            answer = await send(http, fake, step["request"])
            assert answer["status"] == step["response"]["status"], step["request"]["path"]
            if step["request"]["path"].endswith("_generation"):
                assert answer["body"] == step["response"]["body"]
        assert (await send(http, fake, get("/ready")))["status"] == 200
    last = [(s["request"]["path"], s["response"]["status"]) for s in steps[-2:]]
    assert last == [("/ready", 503), ("/health", 200)]


async def test_a_pause_aborts_what_runs_and_holds_back_what_comes(
    http: aiohttp.ClientSession,
) -> None:
    async with fake_that_says({"content": "at last"}, {"delay_s": 0.2}) as fake:
        running = asyncio.create_task(send(http, fake, chat("a")))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        await send(http, fake, {**chat(""), "path": "/pause_generation", "body": {}})
        assert (await running)["body"]["choices"][0]["finish_reason"] == "abort"
        held = asyncio.create_task(send(http, fake, chat("b")))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        assert load_of(await send(http, fake, get("/v1/loads"))) == (0, 0, 0)
        await send(http, fake, {**chat(""), "path": "/continue_generation", "body": {}})
        assert (await held)["body"]["choices"][0]["message"]["content"] == "at last"


async def test_a_request_that_is_paused_in_place_keeps_its_slot_and_its_time(
    http: aiohttp.ClientSession,
) -> None:
    async with fake_that_says({"content": "x"}, {"delay_s": 0.3}) as fake:
        begun = time.monotonic()
        running = asyncio.create_task(send(http, fake, chat("a")))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        order = {**chat(""), "path": "/pause_generation", "body": {"mode": "in_place"}}
        await send(http, fake, order)
        await asyncio.wait({running}, timeout=0.5)
        assert not running.done() and load_of(await send(http, fake, get("/v1/loads")))[0] == 1
        fake.resume()
        assert (await running)["body"]["choices"][0]["finish_reason"] == "stop"
        assert time.monotonic() - begun > 0.3 + 0.5


async def test_a_lost_engine_shows_in_health_alone_and_then_the_server_is_gone(
    http: aiohttp.ClientSession,
) -> None:
    timeline = recording("crash/engine_process_killed")["timeline"]
    assert timeline[0] == {"t_s": 0.0, "what": "/ready", "answer": 200}
    gone_s = timeline[1]["t_s"]
    assert timeline[1]["answer"] == "RemoteDisconnected"

    fake = fake_that_says({"content": "x"}, {"delay_s": 0.05}, crash_linger_s=0.3)
    assert fake_that_says({}).settings.crash_linger_s == pytest.approx(gone_s, abs=0.1)
    await fake.start()
    running = asyncio.create_task(send(http, fake, chat("a")))
    await fake.wait_until(lambda _: fake.in_flight == 1)
    fake.crash()
    health = asyncio.create_task(send(http, fake, get("/health")))
    assert (await send(http, fake, get("/ready")))["status"] == 200
    for lost in (running, health):
        with pytest.raises(aiohttp.ClientConnectionError):
            await lost
    await asyncio.wait_for(fake.ended.wait(), 5)
    with pytest.raises(aiohttp.ClientConnectorError):
        await send(http, fake, get("/ready"))
    assert fake.crashed and fake.requests[0].status != 200


async def test_an_abort_takes_as_long_as_recorded(http: aiohttp.ClientSession) -> None:
    running_s = recording("cancel/abort_nonstream")["gone_after_s"]
    waiting_s = recording("cancel/abort_waiting")["answered_after_abort_s"]
    async with fake_that_says({}, {"delay_s": 60}, max_running=1) as fake:
        assert fake.settings.abort_running_s == pytest.approx(running_s)
        assert fake.settings.abort_waiting_s == pytest.approx(waiting_s)
        first = asyncio.create_task(send(http, fake, chat("first")))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        second = asyncio.create_task(send(http, fake, chat("second")))
        await fake.wait_until(lambda _: fake.in_flight == 2)
        for rid, task in (("second", second), ("first", first)):
            abort = {**chat(""), "path": "/abort_request", "body": {"rid": rid}}
            begun = time.monotonic()
            await send(http, fake, abort)
            await task
            assert time.monotonic() - begun < 1
            assert fake.in_flight == (1 if rid == "second" else 0)


async def test_a_waiting_request_whose_client_left_leaves_the_queue_at_the_next_look(
    http: aiohttp.ClientSession,
) -> None:
    recorded = recording("cancel/disconnect_while_waiting")["measured"][1]
    assert not recorded["stream"] and 0 < recorded["left_queue_after_s"] < 4
    changes: Json = {"max_running": 1, "disconnect_poll_s": 0.2}
    async with fake_that_says({}, {"delay_s": 60}, **changes) as fake:
        first = asyncio.create_task(send(http, fake, chat("first")))
        await fake.wait_until(lambda _: fake.in_flight == 1)
        second = asyncio.create_task(send(http, fake, chat("second")))
        await fake.wait_until(lambda _: fake.in_flight == 2)
        second.cancel()
        await fake.wait_until(lambda seen: seen[1].left is not None)
        assert fake.requests[1].outcome == "disconnected" and not first.done()
        first.cancel()


async def test_a_request_that_does_not_fit_into_the_token_pool_waits(
    http: aiohttp.ClientSession,
) -> None:
    # Recorded: of three requests that together need more than the pool, two wait.
    recorded = recording("kv_pool/v1_loads_full")["response"]
    assert (recorded["body"]["loads"][0]["num_waiting_reqs"]) == 2
    asks = [chat(rid, "word " * 600) for rid in "abc"]  # about 800 tokens each
    async with fake_that_says({}, {"delay_s": 60}, max_total_tokens=1500) as fake:
        tasks = [asyncio.create_task(send(http, fake, ask)) for ask in asks]
        await fake.wait_until(lambda _: fake.in_flight == 3)
        running, waiting, used = load_of(await send(http, fake, get("/v1/loads")))
        assert (running, waiting) == (1, 2) and 700 < used < 1500
        for task in tasks:
            task.cancel()


async def test_slots_bound_what_runs_and_the_load_follows(http: aiohttp.ClientSession) -> None:
    recorded = recording("load/v1_loads_busy")["response"]["body"]["loads"][0]
    assert (recorded["num_running_reqs"], recorded["num_waiting_reqs"]) == (32, 16)
    async with fake_that_says({}, max_running=2, max_queued=2, latency_s=0.3) as fake:
        begun = time.monotonic()
        tasks = [asyncio.create_task(send(http, fake, chat(f"r{i}"))) for i in range(5)]
        await fake.wait_until(lambda seen: any(s.status == 503 for s in seen))
        assert load_of(await send(http, fake, get("/v1/loads")))[:2] == (2, 2)
        text = (await send(http, fake, get("/metrics")))["body_text"]
        assert re.search(r"^sglang:num_running_reqs\{.*\} 2\.0$", text, re.M)
        assert re.search(r"^sglang:num_queue_reqs\{.*\} 2\.0$", text, re.M)
        statuses = sorted([(await task)["status"] for task in tasks])
    assert statuses == [200, 200, 200, 200, 503]
    assert time.monotonic() - begun > 2 * 0.3


@pytest.mark.parametrize(("kind", "code"), [("drain", 0), ("crash", -signal.SIGKILL)])
async def test_a_script_can_end_the_process(
    kind: str, code: int, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    recorded = {
        "drain": recording("shutdown/sigterm_in_flight")["timeline"][-1]["answer"],
        "crash": recording("crash/engine_process_killed")["timeline"][-1]["answer"],
    }
    assert recorded[kind] == f"exited with {int(code)}"
    script = tmp_path / "script.yaml"
    turns = [{"error": {"kind": kind}, "reply": {"content": "the last words"}}]
    script.write_text(yaml.safe_dump({"conversations": [{"turns": turns}]}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sglang_fake", "--script", str(script), "--port", "0"),
        *("--drain-linger-s", "0.1", "--crash-linger-s", "0.1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PYTHONPATH": str(FAKE)},
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        url = re.findall(rb"http://\S+", line)[0].decode()
        ask = http.post(f"{url}/v1/chat/completions", json=chat("a")["body"])
        if kind == "drain":
            async with ask as response:
                body = await response.json()
            assert body["choices"][0]["message"]["content"] == "the last words"
        else:
            with pytest.raises(aiohttp.ClientConnectionError):
                await ask
        assert await asyncio.wait_for(process.wait(), 20) == code
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
