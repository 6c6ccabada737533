"""The client of the API server, against a server of the test's own on the loopback address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from ratchet.edges import kube
from ratchet.edges.kube import ApiError, ApiUnreachable, Kube, KubeConfigError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(tmp_path: Path, handler: Handler, token: str = "") -> AsyncIterator[Kube]:
    """A client of a server that answers every request by `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = tmp_path / "kubeconfig"
    config.write_text(kubeconfig(f"http://127.0.0.1:{port}", token))
    try:
        async with await Kube.connect(config) as client:
            yield client
    finally:
        await runner.cleanup()


def kubeconfig(url: str, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {"token": token} if token else {}}],
        }
    )


async def test_a_request_carries_body_query_content_type_and_token(tmp_path: Path) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "method": request.method,
                "path": request.path_qs,
                "type": request.content_type,
                "token": request.headers["Authorization"],
                "body": json.loads(await request.text()),
            }
        )

    async with server(tmp_path, echo, token="secret") as client:
        found = await client.request(
            "PATCH", "/a/b", [{"op": "test"}], params={"x": "a b&c"}, content_type=kube.JSON_PATCH
        )
    assert found == {
        "method": "PATCH",
        "path": "/a/b?x=a+b%26c",
        "type": "application/json-patch+json",
        "token": "Bearer secret",
        "body": [{"op": "test"}],
    }


async def test_a_refusal_has_status_reason_message_and_time_to_wait(tmp_path: Path) -> None:
    async def busy(request: web.Request) -> web.Response:
        body = {"kind": "Status", "reason": "TooManyRequests", "message": "slow down"}
        return web.json_response(body, status=429, headers={"Retry-After": "3"})

    async with server(tmp_path, busy) as client:
        with pytest.raises(ApiError) as refusal:
            await client.request("GET", "/x")
    error = refusal.value
    assert (error.status, error.reason, error.message) == (429, "TooManyRequests", "slow down")
    assert error.retry_after == 3.0


async def test_a_refusal_that_is_no_status_object_is_still_one(tmp_path: Path) -> None:
    async def proxy(request: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    async with server(tmp_path, proxy) as client:
        with pytest.raises(ApiError) as refusal:
            await client.request("GET", "/x")
    assert (refusal.value.status, refusal.value.reason) == (502, "BadGateway")
    assert "bad gateway" in refusal.value.message


@pytest.mark.parametrize("answer", ["<html>", "[]"])
async def test_an_answer_that_cannot_be_read_is_none(tmp_path: Path, answer: str) -> None:
    async def odd(request: web.Request) -> web.Response:
        return web.Response(text=answer)

    async with server(tmp_path, odd) as client:
        with pytest.raises(ApiUnreachable, match="GET /x"):
            await client.request("GET", "/x")


async def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async with server(tmp_path, hang) as client:
        with pytest.raises(ApiUnreachable, match=r"within 0\.05 s"):
            await client.request("GET", "/x", timeout_s=0.05)
        never.set()


async def test_one_request_is_one_try(tmp_path: Path) -> None:
    tries = 0

    async def cut(request: web.Request) -> web.Response:
        nonlocal tries
        tries += 1
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with server(tmp_path, cut) as client:
        with pytest.raises(ApiUnreachable):
            await client.request("POST", "/x", {})
    assert tries == 1


def guarded(valid: set[str], asked: list[str]) -> Handler:
    """A server that knows these tokens."""

    async def answer(request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        asked.append(token)
        if token in valid:
            return web.json_response({"token": token, "body": (await request.text()) or None})
        return web.json_response({"reason": "Unauthorized", "message": "Unauthorized"}, status=401)

    return answer


def renew(tmp_path: Path, client: Kube, token: str) -> None:
    (tmp_path / "kubeconfig").write_text(kubeconfig(client.host, token))


async def test_a_refused_token_is_read_again_and_the_request_sent_once_more(tmp_path: Path) -> None:
    valid, asked = {"first"}, list[str]()
    async with server(tmp_path, guarded(valid, asked), token="first") as client:
        await client.request("GET", "/x")
        renew(tmp_path, client, "second")
        await client.request("GET", "/x")
        assert asked == ["first", "first"], "a token that is good is not read again"
        valid |= {"second"}
        valid -= {"first"}
        found = await client.request("POST", "/x", {"a": 1})
        assert found == {"token": "second", "body": '{"a": 1}'}
        await client.request("GET", "/x")
    assert asked == ["first", "first", "first", "second", "second"]


async def test_a_token_that_is_refused_and_still_the_newest_is_a_refusal(tmp_path: Path) -> None:
    asked: list[str] = []
    async with server(tmp_path, guarded(set(), asked), token="first") as client:
        with pytest.raises(ApiError) as refusal:
            await client.request("GET", "/x")
    assert refusal.value.status == 401
    assert asked == ["first"]


async def test_a_newer_token_that_is_refused_too_is_not_asked_for_a_third_time(
    tmp_path: Path,
) -> None:
    asked: list[str] = []
    async with server(tmp_path, guarded(set(), asked), token="first") as client:
        renew(tmp_path, client, "second")
        with pytest.raises(ApiError):
            await client.request("GET", "/x")
    assert asked == ["first", "second"]


async def test_many_requests_that_are_refused_together_find_the_new_token_together(
    tmp_path: Path,
) -> None:
    asked: list[str] = []
    async with server(tmp_path, guarded({"second"}, asked), token="first") as client:
        renew(tmp_path, client, "second")
        found = await asyncio.gather(*(client.request("GET", "/x") for _ in range(20)))
    assert [each["token"] for each in found] == ["second"] * 20


async def test_credentials_that_are_gone_are_no_answer(tmp_path: Path) -> None:
    asked: list[str] = []
    async with server(tmp_path, guarded(set(), asked), token="first") as client:
        (tmp_path / "kubeconfig").unlink()
        with pytest.raises(ApiUnreachable, match="refuses the credentials"):
            await client.request("GET", "/x")


async def test_netrc_is_not_asked_for_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    asked: list[str] = []
    async with server(tmp_path, guarded({""}, asked)) as client:
        await client.request("GET", "/x")
    assert asked == [""]


async def test_a_list_is_read_page_by_page(tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []

    async def pages(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        rest = {"": "two", "two": ""}[request.query.get("continue", "")]
        return web.json_response({"metadata": {"continue": rest}, "items": [{"n": len(asked)}]})

    async with server(tmp_path, pages) as client:
        found: list[dict[str, Any]] = [item async for item in kube.pages(client, "/x", "a=b", 1)]
    assert found == [{"n": 1}, {"n": 2}]
    assert asked == [
        {"labelSelector": "a=b", "limit": "1"},
        {"labelSelector": "a=b", "limit": "1", "continue": "two"},
    ]


async def test_missing_credentials_are_told_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(KubeConfigError, match="nowhere"):
        await Kube.connect(tmp_path / "nowhere")


def test_paths_name_group_namespace_and_part() -> None:
    assert kube.task("ns", "t", "status") == (
        "/apis/ratchet.run/v1alpha1/namespaces/ns/agenttasks/t/status"
    )
    assert kube.turn("ns") == "/apis/ratchet.run/v1alpha1/namespaces/ns/agentturns"
    assert kube.core("pods", "ns", "p") == "/api/v1/namespaces/ns/pods/p"
    assert kube.lease("ns", "l") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l"
    assert kube.core("secrets", "ns", "../x").endswith("/secrets/..%2Fx")
