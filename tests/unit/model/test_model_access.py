"""Keys, headers and authorities of endpoints: where they are read, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Self

import pytest
from aiohttp import web
from multidict import CIMultiDict
from ratchet.core.replies import FailureKind, RawReply
from ratchet.edges.access import Access
from ratchet.edges.model import ModelClient

from tests.unit.model.asking import (
    Objects,
    client_of,
    failure,
    fake,
    other_server,
    reply,
    request_to,
)
from tests.unit.model.authority import Authority, TlsBefore

CA = {"ca_config_map": "ours"}
KEY = {"secret_name": "keys", "secret_key": "token"}


class Listener:
    """A server that answers everything with a reply, and keeps the headers of each request."""

    def __init__(self) -> None:
        self.headers: list[CIMultiDict[str]] = []

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}/v1".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.headers.append(CIMultiDict(request.headers))
        return web.json_response({"choices": [{"message": {"content": "a"}}]})


async def test_a_server_whose_authority_is_named_is_trusted() -> None:
    ours = Authority()
    async with (
        client_of(ours={"ca.crt": ours.pem}) as client,
        fake({"reply": {"content": "a"}}) as server,
        TlsBefore(server.url, ours.server_context()) as tls,
    ):
        assert (await reply(client, tls.url, **CA)).content == "a"


async def test_a_bundle_may_have_another_name_and_words_between_its_certificates() -> None:
    ours, other = Authority(), Authority("another authority")
    bundle = f"# Прочие\n{other.pem}# Наши\n{ours.pem}"
    async with (
        client_of(ours={"bundle.pem": bundle}) as client,
        fake({"reply": {}}) as server,
        TlsBefore(server.url, ours.server_context()) as tls,
    ):
        await reply(client, tls.url, **CA, ca_key="bundle.pem")


async def test_a_cancel_frees_the_engine_behind_tls_too() -> None:
    ours = Authority()
    async with (
        client_of(ours={"ca.crt": ours.pem}) as client,
        fake({"reply": {}, "delay_s": 60}) as server,
        TlsBefore(server.url, ours.server_context()) as tls,
    ):
        asking = asyncio.create_task(client.ask(request_to(tls.url, **CA)))
        await server.wait_until(lambda _: server.in_flight == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await server.wait_until(lambda seen: seen[0].left is not None, 2)
        assert server.requests[0].outcome == "aborted"


async def test_an_authority_that_nobody_named_is_not_trusted() -> None:
    async with (
        client_of() as client,
        fake({"reply": {}}) as server,
        TlsBefore(server.url, Authority().server_context()) as tls,
    ):
        failed = await failure(client, tls.url)
        assert server.requests == []
    assert (failed.kind, failed.status, failed.reached) == (FailureKind.CONFIGURATION, None, False)
    assert "no authority known to the operator vouches for (" in failed.message
    assert "caConfigMapRef" in failed.message


async def test_a_wrong_authority_is_named_with_its_config_map() -> None:
    async with (
        client_of(ours={"ca.crt": Authority().pem}) as client,
        fake({"reply": {}}) as server,
        TlsBefore(server.url, Authority().server_context()) as tls,
    ):
        failed = await failure(client, tls.url, **CA, namespace="models")
    assert (failed.kind, failed.reached) == (FailureKind.CONFIGURATION, False)
    assert "key 'ca.crt' of ConfigMap models/ours does not vouch for (" in failed.message


async def test_a_certificate_for_another_address_is_told_from_an_unknown_authority() -> None:
    ours = Authority()
    async with (
        client_of(ours={"ca.crt": ours.pem}) as client,
        fake({"reply": {}}) as server,
        TlsBefore(server.url, ours.server_context("192.0.2.1")) as tls,
    ):
        failed = await failure(client, tls.url, **CA)
    assert failed.kind is FailureKind.CONFIGURATION
    assert "has a certificate for another name (" in failed.message


async def test_a_certificate_that_has_expired_says_so() -> None:
    ours, past = Authority(), datetime.now(UTC) - timedelta(hours=1)
    async with (
        client_of(ours={"ca.crt": ours.pem}) as client,
        fake({"reply": {}}) as server,
        TlsBefore(server.url, ours.server_context(until=past)) as tls,
    ):
        failed = await failure(client, tls.url, **CA)
    assert failed.kind is FailureKind.CONFIGURATION
    assert "certificate has expired" in failed.message


async def test_https_to_a_server_without_tls_is_a_configuration_failure() -> None:
    async with client_of() as client, fake({"reply": {}}) as server:
        failed = await failure(client, server.base_url.replace("http:", "https:"))
    assert (failed.kind, failed.reached) == (FailureKind.CONFIGURATION, False)
    assert "is its URL one of http, not https?" in failed.message


async def test_a_handshake_that_is_cut_off_is_tried_again() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with client_of() as client, server:
        failed = await failure(client, f"https://127.0.0.1:{port}/v1")
    assert (failed.kind, failed.reached) == (FailureKind.RETRY, False)


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ({}, "there is no ConfigMap models/ours: create it"),
        ({"ours": {"other": "x"}}, "ConfigMap models/ours has no key 'ca.crt': add it, as PEM"),
        ({"ours": {"ca.crt": "rubbish"}}, "'ca.crt' of ConfigMap models/ours holds no certificates"),
        ({"ours": {"ca.crt": " \n"}}, "'ca.crt' of ConfigMap models/ours holds no certificates"),
    ],
)  # fmt: skip
async def test_an_authority_that_cannot_be_used_is_a_configuration_failure(
    objects: dict[str, Mapping[str, str]], says: str
) -> None:
    async with client_of(**objects) as client:
        failed = await failure(client, "https://127.0.0.1:9/v1", **CA, namespace="models")
    assert (failed.kind, failed.reached) == (FailureKind.CONFIGURATION, False)
    assert says in failed.message
    assert failed.message.endswith("Correct the ModelEndpoint, its Secret or its CA.")


async def test_an_authority_that_was_replaced_meanwhile_costs_a_try_and_no_task() -> None:
    old, new = Authority(), Authority()
    objects = Objects(ours={"ca.crt": old.pem})
    async with ModelClient(Access(objects)) as client, fake({"reply": {}}) as server:
        async with TlsBefore(server.url, old.server_context()) as tls:
            await reply(client, tls.url, **CA)
        objects.objects["ours"] = {"ca.crt": new.pem}
        async with TlsBefore(server.url, new.server_context()) as tls:
            failed = await failure(client, tls.url, **CA)
            await reply(client, tls.url, **CA)
    assert (failed.kind, failed.reached) == (FailureKind.RETRY, False)
    assert "replaced meanwhile" in failed.message


async def test_a_key_that_was_replaced_meanwhile_costs_a_try_and_no_task() -> None:
    objects = Objects(keys={"token": "old-key"})
    async with ModelClient(Access(objects)) as client:
        async with fake({"reply": {}}, api_key="old-key") as server:
            await reply(client, server.base_url, **KEY)
        objects.objects["keys"] = {"token": "new-key"}
        async with fake({"reply": {}}, api_key="new-key") as server:
            failed = await failure(client, server.base_url, **KEY)
            await reply(client, server.base_url, **KEY)
    assert (failed.kind, failed.status) == (FailureKind.RETRY, 401)
    assert "replaced meanwhile" in failed.message


async def test_secret_and_authority_are_those_of_the_endpoints_namespace() -> None:
    objects = Objects(keys={"token": "k"}, ours={"ca.crt": Authority().pem})
    async with ModelClient(Access(objects)) as client, fake({"reply": {}}, api_key="k") as server:
        await reply(client, server.base_url, **KEY, **CA, namespace="models")
        await reply(client, server.base_url, **KEY, **CA, rid="r-2")
    assert objects.reads == [
        ("Secret", "models", "keys"),
        ("ConfigMap", "models", "ours"),
        ("Secret", "team-a", "keys"),
        ("ConfigMap", "team-a", "ours"),
    ]


async def test_what_is_read_is_kept_for_a_minute_and_then_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = Authority()
    objects = Objects(keys={"token": "k"}, ours={"ca.crt": ours.pem})
    async with (
        ModelClient(Access(objects)) as client,
        fake({"reply": {}}, api_key="k") as server,
        TlsBefore(server.url, ours.server_context()) as tls,
    ):
        for number in range(3):
            await reply(client, tls.url, rid=f"r-{number}", **KEY, **CA)
        assert len(objects.reads) == 2
        monkeypatch.setattr("ratchet.edges.access.LIFE_S", 0.0)
        await reply(client, tls.url, rid="r-3", **KEY, **CA)
        assert len(objects.reads) == 4
        assert tls.connections == 1, "the same authority read again opens no new connection"


async def test_many_who_need_a_key_at_once_read_it_once_and_share_what_goes_wrong() -> None:
    class Slow(Objects):
        async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
            self.reads.append(("Secret", namespace, name))
            await asyncio.sleep(0.01)
            return self._known(name)

        def _known(self, name: str) -> Mapping[str, str]:
            if name not in self.objects:
                raise LookupError("there is none")
            return self.objects[name]

    objects = Slow()
    async with ModelClient(Access(objects)) as client, fake({"reply": {}}, api_key="k") as server:
        wishes = [request_to(server.base_url, rid=f"r-{n}", **KEY) for n in range(100)]
        failed = await asyncio.gather(*(client.ask(wish) for wish in wishes))
        assert not any(isinstance(answer, RawReply) for answer in failed)
        assert len(objects.reads) == 1
        objects.objects["keys"] = {"token": "k"}
        answers = await asyncio.gather(*(client.ask(wish) for wish in wishes))
    assert all(isinstance(answer, RawReply) for answer in answers)
    assert len(objects.reads) == 2


async def test_who_is_cancelled_while_a_key_is_read_takes_it_away_from_nobody() -> None:
    class Held(Objects):
        def __init__(self, **objects: Mapping[str, str]) -> None:
            super().__init__(**objects)
            self.asked, self.go = asyncio.Event(), asyncio.Event()

        async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
            self.asked.set()
            await self.go.wait()
            return await super().secret(namespace, name)

    objects = Held(keys={"token": "k"})
    async with ModelClient(Access(objects)) as client, fake({"reply": {}}, api_key="k") as server:
        first, second = (
            asyncio.create_task(client.ask(request_to(server.base_url, rid=rid, **KEY)))
            for rid in ("r-1", "r-2")
        )
        await objects.asked.wait()
        first.cancel()
        objects.go.set()
        assert isinstance(await second, RawReply)
    assert objects.reads == [("Secret", "team-a", "keys")]


async def test_an_endpoints_own_headers_are_sent_and_never_win_over_ours() -> None:
    own = (
        ("X-Org", "team-a"),
        ("content-type", "text/plain"),
        ("AUTHORIZATION", "Bearer mine"),
        ("X-Smg-Routing-Key", "mine"),
    )
    async with client_of(keys={"token": "k"}) as client, Listener() as server:
        await reply(client, server.url, **KEY, headers=own)
    (headers,) = server.headers
    assert headers["X-Org"] == "team-a"
    assert headers.getall("Authorization") == ["Bearer k"]
    assert headers.getall("Content-Type") == ["application/json"]
    assert headers.getall("x-smg-routing-key") == ["task-uid"]


async def test_an_abort_carries_the_endpoints_own_headers_and_the_admin_key() -> None:
    class Hanging(Listener):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.go = asyncio.Event(), asyncio.Event()

        async def _answer(self, request: web.Request) -> web.Response:
            if "abort" in request.path:
                return await super()._answer(request)
            self.asked.set()
            await self.go.wait()
            return web.Response()

    own = (("X-Org", "team-a"),)
    async with Hanging() as server:
        client = client_of(keys={"token": "k", "admin-key": "a"})
        asking = asyncio.create_task(client.ask(request_to(server.url, **KEY, headers=own)))
        await server.asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await client.close()
        server.go.set()
    assert server.headers
    for headers in server.headers:
        assert (headers["X-Org"], headers["Authorization"]) == ("team-a", "Bearer a")


async def test_secrets_that_a_server_repeats_are_hidden_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    own = (("X-Token", "header-secret"),)
    echo = "bad key sk-0123456789 and header-secret"
    async with (
        client_of(keys={"token": "sk-0123456789"}) as client,
        other_server({"error": {"message": echo}}, 401) as server,
    ):
        failed = await failure(client, server.base_url, **KEY, headers=own)
        reach = await client._access.of(request_to("", **KEY, headers=own).config, "team-a")
    assert "answered 401: bad key *** and ***" in failed.message
    ours = [record.getMessage() for record in caplog.records if record.name != "sglang_fake"]
    for text in (*ours, repr(reach), repr(failed)):
        assert "sk-0123456789" not in text and "header-secret" not in text
