"""What the real sglang-router does with an operator's requests."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from sglang_fake import FakeSGLang, Settings, check_script

from tests.router.router import Json, Reply, Router, chart_flags, installed, router_before, worker

HISTORY: list[Json] = [
    {"role": "system", "content": "You are an agent."},
    {"role": "user", "content": "Mend it."},
]
CALL: Json = {
    "id": "abc123def",
    "type": "function",
    "function": {"name": "bash", "arguments": '{"command": "ls"}'},
}
LONGER = [
    *HISTORY,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abc123def", "content": "a.txt"},
]


def failing(**error: Any) -> FakeSGLang:
    script = check_script({"conversations": [{"turns": [{"error": error}]}]})
    return FakeSGLang(script, Settings(health_delay_s=0.01))


async def until_answered(router: Router, key: str) -> list[Reply]:
    """Every answer to the task's request, up to the first good one."""
    replies: list[Reply] = []
    async with asyncio.timeout(20):
        while not replies or replies[-1].status != 200:
            replies.append(await router.ask(key))
    return replies


async def test_a_task_stays_with_its_worker_and_both_workers_get_tasks(router: Router) -> None:
    keys = [f"task-{number}" for number in range(64)]
    for messages in (HISTORY, LONGER):
        for key in keys:
            assert (await router.ask(key, messages=messages)).status == 200
    seen = [{record.key for record in worker.requests} for worker in router.workers]
    assert seen[0] and seen[1] and not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(keys)
    # By a hash of the workers' URLs, whose ports differ: about half, and never a handful.
    assert min(map(len, seen)) >= 16, f"{len(seen[0])} and {len(seen[1])} of 64"


async def test_a_growing_history_finds_its_prefix_in_the_worker_s_cache(router: Router) -> None:
    cold = await router.ask("a", messages=HISTORY)
    warm = await router.ask("a", messages=LONGER)
    cached = [r.body["usage"]["prompt_tokens_details"]["cached_tokens"] for r in (cold, warm)]
    assert cached[0] == 0 and cached[1] > 10


async def test_the_router_drops_fields_that_are_sglang_s_own(router: Router) -> None:
    own: Json = {"rid": "task-1", "cache_salt": "team-a", "priority": 3, "session_id": "s"}
    kept: Json = {"reasoning_effort": "high", "temperature": 0.2, "tool_choice": "auto"}
    tools = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
    reply = await router.ask("a", messages=LONGER, tools=tools, max_tokens=9, **own, **kept)
    [body] = [record.body for worker in router.workers for record in worker.requests]
    assert body is not None and not own.keys() & body.keys()
    assert kept.items() <= body.items() and body["max_completion_tokens"] == 9
    assert reply.body["id"] != "task-1"
    # Only `content: null` is left out of the history.
    assert [m.get("content") for m in body["messages"]] == [m["content"] for m in LONGER]
    assert body["messages"][2]["tool_calls"] == [CALL]


async def test_a_closed_connection_reaches_the_worker(router: Router) -> None:
    home = await router.home_of("a")
    slow = check_script({"conversations": [{"turns": [{"error": {"kind": "hang"}}]}]})
    home.play(slow)
    asked = asyncio.create_task(router.ask("a"))
    await home.wait_until(lambda _: home.in_flight == 1, timeout_s=10)
    begun = time.monotonic()
    asked.cancel()
    await home.wait_until(lambda _: home.in_flight == 0, timeout_s=10)
    assert home.requests[-1].outcome == "disconnected"
    assert time.monotonic() - begun < 2  # the worker looks every 0.2 s here


@pytest.mark.parametrize(
    ("fault", "status"), [({"kind": "rate_limited"}, 429), ({"kind": "context_too_long"}, 400)]
)
async def test_a_refusal_of_the_worker_passes_as_it_is(
    fault: Json, status: int, router: Router
) -> None:
    home = await router.home_of("a")
    home.play(check_script({"conversations": [{"turns": [{"error": fault}]}]}))
    # Its circuit breaker would count these, and soon refuse every task: the chart has it off.
    for _ in range(12):
        reply = await router.ask("a")
        assert reply.status == status
    assert reply.headers.get("Retry-After") == ("1" if status == 429 else None)


async def test_a_task_moves_when_its_worker_dies_and_the_others_do_not_notice(
    router: Router,
) -> None:
    first, second = await router.one_task_each()
    await router.workers[1].stop()
    replies = await until_answered(router, second)
    statuses = [reply.status for reply in replies]
    assert statuses[-1] == 200 and set(statuses[:-1]) == {500}
    assert (await router.ask(first)).status == 200


async def test_the_router_s_errors_are_those_that_the_fake_s_faults_copy(router: Router) -> None:
    _, second = await router.one_task_each()
    await router.workers[1].stop()
    lost = await router.ask(second)
    await router.workers[0].stop()
    async with asyncio.timeout(20):
        while (reply := await router.ask(second)).status != 503:
            pass
        while await router.status("/readiness") != 503:
            pass  # each look is a request
    for kind, real in (("router_lost_worker", lost), ("router_no_workers", reply)):
        async with failing(kind=kind) as fake:
            said = await Router(fake.url, (fake, fake), router.http).ask("a")
        assert said.status == real.status
        assert without_address(said.body) == without_address(real.body)
        assert said.headers["x-smg-error-code"] == real.headers["x-smg-error-code"]


def without_address(body: Json) -> Json:
    message = re.sub(r"http://[\w.:]+/", "http://worker/", body["error"]["message"])
    return {"error": {**body["error"], "message": message}}


async def test_a_draining_worker_answers_on_and_then_loses_its_tasks(router: Router) -> None:
    _, second = await router.one_task_each()
    router.workers[1].hold_drain()
    async with asyncio.timeout(30):
        while True:
            seen = len(router.workers[0].requests)
            assert (await router.ask(second)).status == 200  # never an error on the way
            if len(router.workers[0].requests) > seen:
                return
            await asyncio.sleep(0.05)


async def test_a_worker_with_a_full_queue_keeps_its_task(router: Router) -> None:
    home = await router.home_of("a")
    full = check_script({"conversations": [{"turns": [{"error": {"kind": "queue_full"}}]}]})
    home.play(full)
    replies = [await router.ask("a") for _ in range(4)]
    assert [reply.status for reply in replies] == [503] * 4
    assert replies[0].body["message"] == "The request queue is full."


@pytest.mark.skipif(not installed(), reason="sglang-router is not installed here")
@pytest.mark.parametrize(("retries", "times"), [(False, 1), (True, 5)])
async def test_only_the_router_s_own_retries_would_multiply_a_request(
    retries: bool, times: int
) -> None:
    flags = [flag for flag in chart_flags() if not (retries and flag == "--disable-retries")]
    async with worker() as first, worker() as second:
        for one in (first, second):
            error = {"status": 500, "body": "no"}
            one.play(check_script({"conversations": [{"turns": [{"error": error}]}]}))
        async with router_before(first, second, flags) as router:
            assert (await router.ask("a")).status == 500
            assert len(first.requests) + len(second.requests) == times
