"""A server with --api-key and --admin-api-key."""

from __future__ import annotations

import pytest

from inference.contract.kit import Server, needs, recorded, recording

OPEN = ["GET /ready", "GET /metrics", "GET /health", "GET /health_generate"]
CLOSED = ["GET /v1/models", "GET /v1/loads", "GET /ping", "GET /server_info"]


@recorded("auth/chat_no_key", "auth/chat_wrong_key")
@needs(api_key=True)
@pytest.mark.parametrize(("name", "key"), [("chat_no_key", None), ("chat_wrong_key", "wrong")])
async def test_chat_without_the_key_is_a_401(name: str, key: str | None, server: Server) -> None:
    wanted = recording(f"auth/{name}")["response"]
    answer = await server.send(recording("chat/plain")["request"], key)
    assert (answer.status, answer.json) == (wanted["status"], wanted["body"])


@recorded("auth/table")
@needs(api_key=True)
@pytest.mark.parametrize("route", OPEN + CLOSED)
async def test_a_key_opens_what_it_was_recorded_to_open(route: str, server: Server) -> None:
    table = recording("auth/table")["status"][route]
    method, path = route.split()
    keys = {"none": None, "wrong": "wrong", "key": server.key}
    if server.admin_key is not None:
        keys["admin"] = server.admin_key
    for name, key in keys.items():
        answer = await server.send({"method": method, "path": path}, key)
        assert answer.status == table[name], name


@recorded("auth/table")
@needs(api_key=True)
async def test_with_an_admin_key_the_plain_key_does_not_abort(server: Server) -> None:
    if server.admin_key is None:
        pytest.skip("needs a server with --admin-api-key, and --model-admin-key")
    table = recording("auth/table")["status"]["POST /abort_request"]
    headers = {"content-type": "application/json"}
    order = {"method": "POST", "path": "/abort_request", "headers": headers, "body": {"rid": "no"}}
    statuses = [(await server.send(order, key)).status for key in (server.key, server.admin_key)]
    assert statuses == [table["key"], table["admin"]] == [401, 200]
