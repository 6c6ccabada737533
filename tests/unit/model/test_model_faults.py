"""Each fault of a model server: what it is taken for, what is said of it, and what becomes of the
engine's work on it.

A reply that is sound HTTP and no use is no failure here: it is judged afterwards, and must never
come out as the end of a task.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web
from ratchet.core.records import Verdict
from ratchet.core.replies import FailureKind, RawCall
from ratchet.core.verdict import judge
from ratchet.edges.model import ModelClient
from ratchet.edges.schemas import check_arguments
from sglang_fake import FakeSGLang

from tests.unit.model.asking import client_of, failure, fake, reply, request_to

SOON = 2.0
"""Seconds within which an engine must be free again; it looks for lost clients every 4 s."""


@pytest.fixture
async def client() -> AsyncIterator[ModelClient]:
    async with client_of(keys={"token": "k", "admin-key": "a"}) as client:
        yield client


@pytest.mark.parametrize(
    ("kind", "meaning", "status", "says"),
    [
        ("queue_full", "Wait", 503, "answered 503: The request queue is full."),
        ("waiting_timeout", "Wait", 503, "answered 503: Request waiting timeout reached."),
        ("preempted", "Wait", 503, "aborted by a higher priority request"),
        ("rate_limited", "Wait", 429, "answered 429: Too many requests."),
        ("router_no_workers", "Wait", 503, "No available workers"),
        ("running_timeout", "Retry", 503, "answered 503: Request running timeout reached."),
        ("internal", "Retry", 500, "answered 500: Internal Server Error"),
        ("router_lost_worker", "Retry", 500, "call_upstream_request_error"),
        ("abort", "Retry", 200, "ended the request before the reply was whole"),
        ("bad_json", "Retry", None, "answered what cannot be read: it is not JSON"),
        ("cut", "Retry", None, "did not answer: ClientPayloadError"),
        ("disconnect", "Retry", None, "did not answer: ServerDisconnectedError"),
        ("crash", "Retry", None, "did not answer: "),
        ("context_too_long", "Context", 400, "longer than the model's context length"),
        ("unauthorized", "Configuration", 401, "answered 401: Unauthorized"),
        ("model_not_found", "Configuration", 404, "The model does not exist."),
    ],
)
async def test_a_fault_is_classed_by_who_must_act_and_told_in_the_servers_words(
    client: ModelClient, kind: str, meaning: str, status: int | None, says: str
) -> None:
    async with fake({"error": {"kind": kind}}, crash_linger_s=0.01) as server:
        failed = await failure(client, server.base_url)
        assert len(server.requests) == 1, "the client never retries by itself"
    assert (failed.kind, failed.status) == (FailureKind(meaning), status)
    assert failed.message.startswith(f'The model endpoint "main" ({server.base_url}) ')
    assert says in failed.message
    assert failed.reached, "it was sent, so it may have cost something"


async def test_a_full_server_says_so_before_it_works(client: ModelClient) -> None:
    async with fake({"reply": {}, "delay_s": 30}, max_running=1, max_queued=1) as server:
        asked = [
            asyncio.create_task(client.ask(request_to(server.base_url, rid=f"r-{number}")))
            for number in range(2)
        ]
        await server.wait_until(lambda _: server.in_flight == 2)
        failed = await failure(client, server.base_url, rid="r-2")
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    assert (failed.kind, failed.status) == (FailureKind.WAIT, 503)


async def test_a_server_that_drains_still_answers(client: ModelClient) -> None:
    async with fake({"reply": {"content": "a"}}, drain_linger_s=0.5) as server:
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        assert (await reply(client, server.base_url)).content == "a"
        await draining
    assert (await failure(client, server.base_url)).kind is FailureKind.RETRY


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"first_byte_timeout_s": 0.1}, "sent no first byte of an answer within 0.1 s"),
        ({"total_timeout_s": 0.1}, "did not answer within 0.1 s"),
    ],
)
async def test_a_server_that_hangs_is_left_in_time_and_freed(
    client: ModelClient, config: dict[str, Any], says: str
) -> None:
    async with fake({"error": {"kind": "hang"}}) as server:
        failed = await failure(client, server.base_url, **config)
        await freed(server)
    assert (failed.kind, failed.status, failed.reached) == (FailureKind.RETRY, None, True)
    assert says in failed.message


async def test_an_answer_that_begins_in_time_may_take_longer_than_its_first_byte(
    client: ModelClient,
) -> None:
    async with fake({"error": {"kind": "stall"}}) as server:
        failed = await failure(
            client, server.base_url, first_byte_timeout_s=0.2, total_timeout_s=0.6
        )
    assert failed.kind is FailureKind.RETRY
    assert "did not answer within 0.6 s" in failed.message


async def test_an_answer_that_stalls_is_left_and_the_engine_freed(
    client: ModelClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet.edges.model.STALL_S", 0.1)
    async with fake({"error": {"kind": "stall"}}) as server:
        failed = await failure(client, server.base_url, first_byte_timeout_s=30)
        await freed(server)
    assert failed.kind is FailureKind.RETRY
    assert "began an answer and then sent nothing for 0.1 s" in failed.message


async def test_a_slow_reply_is_no_fault_while_the_first_byte_may_take_that_long(
    client: ModelClient,
) -> None:
    async with fake({"reply": {"content": "a"}, "delay_s": 0.3}) as server:
        assert (await reply(client, server.base_url, first_byte_timeout_s=30)).content == "a"


CUT = '{"command": "ls'


@pytest.mark.parametrize(
    ("said", "verdict", "told"),
    [
        ({"content": "Done, I think."}, Verdict.TEXT, ""),
        ({"content": ""}, Verdict.EMPTY, "The reply was empty."),
        ({"content": None}, Verdict.EMPTY, "The reply was empty."),
        ({"content": "Let me", "finish_reason": "length"}, Verdict.TRUNCATED, "was cut off"),
        ({"tool_calls": [{"name": "bash", "arguments": CUT}], "finish_reason": "length"},
         Verdict.TRUNCATED, "was cut off at the token limit: the arguments of call 0 (bash)"),
        ({"tool_calls": [{"name": "bash", "arguments": CUT}]}, Verdict.MALFORMED, "are not JSON"),
        ({"tool_calls": [{"name": "launch_rocket", "arguments": {"to": "moon"}}]},
         Verdict.UNKNOWN_TOOL, "there is no tool 'launch_rocket'"),
        ({"tool_calls": [{"name": "bash", "arguments": {"cmd": "ls"}}]},
         Verdict.MALFORMED, "'command' is missing"),
        ({"content": "I cannot.", "finish_reason": "content_filter"},
         Verdict.REFUSED, "withheld by a content filter"),
    ],
)  # fmt: skip
async def test_a_reply_that_is_no_use_never_ends_a_task(
    client: ModelClient, said: dict[str, Any], verdict: Verdict, told: str
) -> None:
    async with fake({"reply": said}, forward_unknown_tools=True) as server:
        judged = judge(
            await reply(client, server.base_url),
            task_uid="u",
            turn=1,
            attempt=1,
            endpoint="main",
            tools=("bash", "finish"),
            check=check_arguments,
        )
    assert judged.verdict is verdict
    assert told in judged.note
    assert judged.verdict not in (Verdict.FINISH, Verdict.CALLS)


async def test_two_calls_come_in_order_and_ids_of_the_server_do_not_matter(
    client: ModelClient,
) -> None:
    calls = [
        {"name": "bash", "arguments": {"command": "a"}, "id": "same"},
        {"name": "bash", "arguments": {"command": "b"}, "id": "same"},
    ]
    async with fake({"reply": {"tool_calls": calls}}) as server:
        answer = await reply(client, server.base_url)
    assert answer.calls == (
        RawCall("bash", '{"command": "a"}'),
        RawCall("bash", '{"command": "b"}'),
    )


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({}, {}),
        ({"secret_name": "keys", "secret_key": "token"}, {"api_key": "k"}),
        (
            {"secret_name": "keys", "secret_key": "token"},
            {"api_key": "k", "admin_api_key": "a"},
        ),
    ],
    ids=["no key", "a key", "a key and an admin key"],
)
@pytest.mark.parametrize("places", [1, 0], ids=["running", "waiting"])
async def test_a_cancel_frees_the_engine_long_before_it_would_look_for_the_client(
    client: ModelClient, config: dict[str, Any], settings: dict[str, Any], places: int
) -> None:
    turn = {"reply": {}, "delay_s": 60}
    async with fake(turn, max_running=2 if places else 1, **settings) as server:
        other = asyncio.create_task(client.ask(request_to(server.base_url, rid="r-0", **config)))
        await server.wait_until(lambda _: server.in_flight == 1)
        asking = asyncio.create_task(client.ask(request_to(server.base_url, **config)))
        await server.wait_until(lambda _: server.in_flight == 2)
        begun = time.monotonic()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert time.monotonic() - begun < SOON / 2, "the abort must not hold up the cancel"
        await server.wait_until(lambda _: server.in_flight == 1, SOON)
        assert [seen.outcome for seen in server.requests if seen.rid == "r-1"] == ["aborted"]
        assert time.monotonic() - begun < SOON
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def test_an_abort_that_overtakes_its_request_is_repeated(client: ModelClient) -> None:
    """The engine knows nothing of the request then, and says 200 to the abort (recorded)."""
    async with fake({"reply": {}, "delay_s": 60}) as server, SlowBody(server.url) as slow:
        asking = asyncio.create_task(client.ask(request_to(f"{slow.url}/v1")))
        await slow.holds.wait()
        begun = time.monotonic()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await slow.passed.wait()
        await freed(server)
        assert server.requests[0].outcome == "aborted"
        assert time.monotonic() - begun < SOON


async def test_without_the_admin_key_the_closed_connection_has_to_do() -> None:
    options: dict[str, Any] = {"api_key": "k", "admin_api_key": "a", "disconnect_poll_s": 0.3}
    async with fake({"reply": {}, "delay_s": 60}, **options) as server:
        async with client_of(keys={"token": "k"}) as client:
            request = request_to(server.base_url, secret_name="keys", secret_key="token")
            asking = asyncio.create_task(client.ask(request))
            await server.wait_until(lambda _: server.in_flight == 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await server.wait_until(lambda seen: seen[0].left is not None, SOON)
        assert server.requests[0].outcome == "disconnected"


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("http://127.0.0.1:9/v1", FailureKind.RETRY, "did not answer: ClientConnectorError"),
        ("http://no-such-host.invalid/v1", FailureKind.RETRY, "did not answer: ClientConnectorDNS"),
        ("nonsense", FailureKind.CONFIGURATION, "has a URL that cannot be asked"),
        ("http://h:99999/v1", FailureKind.CONFIGURATION, "has a URL that cannot be asked"),
        (f"http://{'a' * 64}.example/v1", FailureKind.CONFIGURATION, "a URL that cannot be asked"),
    ],
)
async def test_a_request_that_never_left_says_so(
    client: ModelClient, url: str, kind: FailureKind, says: str
) -> None:
    failed = await failure(client, url)
    assert (failed.kind, failed.reached) == (kind, False)
    assert says in failed.message


async def test_a_server_that_cannot_be_connected_to_in_time_is_named_so(
    client: ModelClient,
) -> None:
    """A listener that accepts nothing, and whose queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        failed = await failure(client, url, connect_timeout_s=0.2)
        for filler in fillers:
            filler.close()
    assert (failed.kind, failed.reached) == (FailureKind.RETRY, False)
    assert "did not let itself be connected to within 0.2 s" in failed.message


async def freed(server: FakeSGLang) -> None:
    await server.wait_until(lambda seen: bool(seen) and seen[0].left is not None, SOON)
    assert server.in_flight == 0


class SlowBody:
    """Something on the way that keeps a chat request back until an abort has gone past it, and
    does not notice that its client has left."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.holds, self.passed = asyncio.Event(), asyncio.Event()
        self._passing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._hold)
        app.router.add_post("/abort_request", self._pass)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._session = aiohttp.ClientSession()
        self.url = "http://{}:{}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait(self._passing, timeout=SOON)
        await self._session.close()
        await self._runner.cleanup()

    async def _hold(self, request: web.Request) -> web.Response:
        task = asyncio.create_task(self._send_on(await request.read()))
        self._passing.add(task)
        self.holds.set()
        await asyncio.shield(task)
        return web.Response()

    async def _send_on(self, body: bytes) -> None:
        await self.passed.wait()
        headers = {"Content-Type": "application/json"}
        async with self._session.post(
            f"{self._target}/v1/chat/completions", data=body, headers=headers
        ):
            pass

    async def _pass(self, request: web.Request) -> web.Response:
        async with self._session.post(
            f"{self._target}/abort_request", json=await request.json()
        ) as answer:
            self.passed.set()
            return web.Response(status=answer.status)
