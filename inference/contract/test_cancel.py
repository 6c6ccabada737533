"""Requests that nobody wants any more: aborts, and clients that left.

Whether a request is still there is asked by its rid, which is refused while it is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from inference.contract.kit import Server, fresh, needs, recorded, recording

NOTICED_S = 1.0
"""An abort was recorded to take 46 ms; a loaded machine may be slower."""


@recorded("cancel/abort_nonstream")
async def test_an_aborted_request_ends_with_200_and_abort(server: Server) -> None:
    wanted, order = recording("cancel/abort_nonstream")["exchanges"]
    rid = fresh("abort")
    running = await server.long_answer(rid)
    answer = await server.order("/abort_request", rid=rid)
    assert (answer.status, answer.text) == (order["response"]["status"], "")
    assert await server.freed(rid, within_s=5) < NOTICED_S
    choice = (await running).choice
    theirs = wanted["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == theirs["finish_reason"] == "abort"


@recorded("cancel/abort_unknown_rid", "cancel/abort_by_prefix")
async def test_an_unknown_rid_and_a_prefix_abort_nothing_and_are_no_error(server: Server) -> None:
    assert recording("cancel/abort_by_prefix")["gone_after_s"] is None
    rid = fresh("prefix")
    running = await server.long_answer(rid)
    for other in (rid[:-1], fresh("unknown")):
        answer = await server.order("/abort_request", rid=other)
        assert (answer.status, answer.text) == (200, "")
    assert await server.in_use(rid) and not running.done()
    await server.order("/abort_request", rid=rid)
    assert (await running).choice["finish_reason"] == "abort"


@recorded("cancel/duplicate_rid", "cancel/rid_reused_after_end")
async def test_a_rid_in_use_is_refused_and_free_again_afterwards(server: Server) -> None:
    refused = recording("cancel/duplicate_rid")["exchanges"][1]["response"]
    assert recording("cancel/rid_reused_after_end")["response"]["status"] == 200
    rid = fresh("twice")
    running = await server.long_answer(rid)
    answer = await server.ask(rid=rid)
    assert answer.status == refused["status"] == 400
    assert answer.json["type"] == refused["body"]["type"]
    await server.order("/abort_request", rid=rid)
    await running
    assert (await server.ask(rid=rid, max_tokens=1)).json["id"] == rid


@recorded("cancel/client_disconnect")
async def test_a_lost_client_is_noticed_at_the_next_look_and_not_before(server: Server) -> None:
    for measured in recording("cancel/client_disconnect")["measured"]["nonstream_closed"]:
        assert measured["closed_after_s"] + measured["gone_after_s"] == pytest.approx(4, abs=0.1)
    rid, begun = fresh("left"), time.monotonic()
    running = await server.long_answer(rid)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await server.freed(rid, within_s=3 * server.disconnect_s + 5)
    gone_s = time.monotonic() - begun
    # A whole number of periods after its start, and up to some delay of a busy machine.
    assert gone_s >= server.disconnect_s * 0.95
    assert (gone_s % server.disconnect_s) < max(1.0, server.disconnect_s / 2)


@recorded("cancel/abort_waiting", "cancel/disconnect_while_waiting")
@needs(max_running_requests=1, max_queued_requests=1)
async def test_an_aborted_request_that_waited_has_no_text_and_no_usage(server: Server) -> None:
    wanted = recording("cancel/abort_waiting")["exchanges"][0]["response"]["body"]
    first, second = fresh("first"), fresh("second")
    running = await server.long_answer(first)
    waiting = await server.long_answer(second)
    await server.order("/abort_request", rid=second)
    answer = await waiting
    assert answer.choice["finish_reason"] == "abort" and not running.done()
    assert answer.json["usage"] == wanted["usage"]
    assert answer.choice["message"]["content"] == wanted["choices"][0]["message"]["content"] == ""
    await server.order("/abort_request", rid=first)
    await running
