"""A full queue, a small token pool, and a pause."""

from __future__ import annotations

import asyncio
import contextlib

from inference.contract.kit import (
    Server,
    disruptive,
    fresh,
    needs,
    recorded,
    recording,
    unrecorded,
)


@recorded("queue/full_nonstream_3", "queue/v1_loads_nonstream", "queue/ready_full")
@needs(max_running_requests=1, max_queued_requests=1)
@disruptive
async def test_a_full_queue_is_a_503_and_shows_in_the_load_alone(server: Server) -> None:
    wanted = recording("queue/full_nonstream_3")["response"]
    theirs = recording("queue/v1_loads_nonstream")["response"]["body"]["loads"][0]
    rids = [fresh("first"), fresh("second")]
    held = []
    for rid in rids:
        held.append(await server.long_answer(rid))
    refused = await server.ask()
    assert (refused.status, refused.json) == (wanted["status"], wanted["body"])
    ours = await server.load()
    for name in ("num_running_reqs", "num_waiting_reqs", "max_running_requests"):
        assert ours[name] == theirs[name]
    assert (await server.get("/ready")).status == 200
    await server.order("/abort_request", abort_all=True)
    for task in held:
        assert (await task).choice["finish_reason"] == "abort"


@recorded("kv_pool/prompt_over_pool", "kv_pool/v1_models")
@needs(max_total_tokens=1500)
async def test_a_pool_smaller_than_the_context_refuses_and_only_the_load_tells_its_size(
    server: Server,
) -> None:
    wanted = recording("kv_pool/prompt_over_pool")["response"]
    answer = await server.ask("word " * 3000, max_tokens=1)
    assert answer.status == wanted["status"] == 400
    assert "exceeds the maximum allowed length" in answer.json["message"]
    assert server.context > 1500 and (await server.load())["max_total_num_tokens"] == 1500


@recorded("pause/pause_and_continue")
@needs(pause=True)
@disruptive
async def test_after_a_pause_the_server_is_unready_until_a_health_check_passes(
    server: Server,
) -> None:
    steps = recording("pause/pause_and_continue")["exchanges"]
    for step in steps:
        request, wanted = step["request"], step["response"]
        if request["method"] == "POST":
            answer = await server.order(request["path"])
            assert answer.json == wanted["body"]
        else:
            answer = await server.get(request["path"])
        assert answer.status == wanted["status"], request["path"]
        if answer.status == 503 and request["path"] == "/health":
            assert answer.took_s >= server.health_s * 0.9
    assert (await server.get("/ready")).status == 200


@unrecorded("sglang 0.5.23, python/sglang/srt/managers/tokenizer_manager.py:938 and :2268")
@needs(pause=True)
@disruptive
async def test_a_pause_aborts_what_runs_and_holds_back_what_comes(server: Server) -> None:
    rid = fresh("paused")
    running = await server.long_answer(rid)
    await server.order("/pause_generation")
    try:
        assert (await running).choice["finish_reason"] == "abort"
        held = asyncio.create_task(server.ask(max_tokens=4))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(held), 0.3)
        assert not held.done() and (await server.load())["num_waiting_reqs"] == 0
    finally:
        await server.order("/continue_generation")
    assert (await held).status == 200
    await server.get("/health")  # it may be needed to get ready again
