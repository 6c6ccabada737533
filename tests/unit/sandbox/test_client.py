"""The operator's client against the real server, and against servers that are not it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from ratchet.core.facts import CallOrder, Enforcement
from ratchet.core.keys import call_digest
from ratchet.edges.certificates import Identity, make_identity, pinned_context
from ratchet.edges.sandbox import SandboxClient, new_session
from ratchet.ports import SandboxAway, SandboxRefused
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Diff, Digest, Digests, Meta, Outcome, Patch, Result

from tests.unit.sandbox.servers import (
    NAME,
    UID,
    ScriptedRunner,
    ServerProcess,
    free_port,
    running_server,
)

KEY = f"{UID}/1/0"
ARGUMENTS = '{"command":"true"}'
ORDER = CallOrder(KEY, "bash", ARGUMENTS, call_digest("bash", ARGUMENTS))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with new_session() as session:
        yield session


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path) as (server, _):
        yield server


def folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def client_of(
    session: aiohttp.ClientSession, port: int, identity: Identity, name: str = NAME
) -> SandboxClient:
    return SandboxClient(
        session, pod="fix-g1", address="127.0.0.1", port=port, identity=identity,
        server_name=name, epoch=1,
    )  # fmt: skip


@pytest.fixture
async def client(session: aiohttp.ClientSession, server: ServerProcess) -> SandboxClient:
    client = client_of(session, server.port, server.identity)
    client.ledger = (await client.info()).ledger
    return client


@pytest.fixture
async def runner(server: ServerProcess) -> AsyncIterator[ScriptedRunner]:
    runner = ScriptedRunner(server)
    await runner.join()
    yield runner
    await runner.leave()


async def test_info_tells_who_answers(client: SandboxClient, runner: ScriptedRunner) -> None:
    info = await client.info()
    assert (info.task_uid, info.ledger, info.epoch, info.shell) == (
        UID, client.ledger, 0, "shell-1"
    )  # fmt: skip
    client.epoch = 4
    await client.raise_epoch()
    assert (await client.info()).epoch == 4


async def test_the_network_is_tried_by_the_real_server(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_PROBE_TARGETS", f"127.0.0.1:{free_port()}")
    async with running_server(tmp_path) as (server, _):
        client = client_of(session, server.port, server.identity)
        found = await client.network()
    assert found is not None and found.enforcement is Enforcement.ENFORCED
    assert "ECONNREFUSED" in found.message


async def test_what_is_still_being_tried_is_no_verdict_yet(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(folder(tmp_path, "reached")) as (listens, _):
        monkeypatch.setenv("RATCHET_PROBE_TARGETS", f"127.0.0.1:{listens.port}")
        async with running_server(folder(tmp_path, "tries")) as (server, _):
            client = client_of(session, server.port, server.identity)
            assert await client.network(wait=0) is None


async def test_a_call_goes_from_submitted_to_its_receipt(
    client: SandboxClient, runner: ScriptedRunner
) -> None:
    assert await client.poll(KEY, wait=0) is None
    reserved = await client.submit(ORDER, 300, wait=0)
    assert not reserved.finished and reserved.receipt.outcome == ""
    polled = asyncio.create_task(client.poll(KEY))
    await runner.was_given(KEY)
    meta = Meta(exit_code=1, spill="s.txt", truncated=True, duration_ms=7, not_utf8=True)
    runner.say(Result(KEY, Outcome.FAILED, "no ☂", meta))
    found = await polled
    assert found and found.finished
    receipt = found.receipt
    assert (receipt.key, receipt.outcome, receipt.content) == (KEY, "Failed", "no ☂")
    assert (receipt.exit_code, receipt.spill, receipt.duration_ms) == (1, "s.txt", 7)
    assert receipt.truncated and receipt.not_utf8
    assert await client.submit(ORDER, 300) == found


async def test_a_cancelled_call_tells_how_it_ended(
    client: SandboxClient, runner: ScriptedRunner
) -> None:
    assert await client.cancel(f"{KEY}/r1") is None
    await client.submit(ORDER, 300, wait=0)
    cancelled = asyncio.create_task(client.cancel(KEY))
    await runner.was_told(protocol.Cancel(KEY))
    runner.finish(KEY, outcome=Outcome.KILLED)
    found = await cancelled
    assert found and found.receipt.outcome == "Killed"


async def test_refusals_carry_their_code(client: SandboxClient, runner: ScriptedRunner) -> None:
    await client.submit(ORDER, 300, wait=0)
    other = '{"command":"false"}'
    with pytest.raises(SandboxRefused) as conflict:
        await client.submit(replace(ORDER, arguments=other, digest=call_digest("bash", other)), 1)
    assert conflict.value.code == "conflict" and "fix-g1" in str(conflict.value)
    client.ledger, ledger = "another", client.ledger
    with pytest.raises(SandboxRefused) as wrong:
        await client.poll(KEY)
    assert wrong.value.code == "wrong_ledger"
    client.ledger, client.epoch = ledger, 9
    await client.raise_epoch()
    client.epoch = 8
    with pytest.raises(SandboxRefused) as stale:
        await client.raise_epoch()
    assert stale.value.code == "stale_epoch"


async def test_digests_on_both_sides_are_the_same(
    client: SandboxClient, runner: ScriptedRunner
) -> None:
    arguments = '{"command":"echo \\"☂\\"","z":1}'
    order = CallOrder(KEY, "bash", arguments, call_digest("bash", arguments))
    assert order.digest == protocol.digest_of("bash", arguments)
    await client.submit(order, 300, wait=0)


async def test_the_diff_comes_out_as_bytes(client: SandboxClient, runner: ScriptedRunner) -> None:
    asked = asyncio.create_task(client.diff())
    await runner.was_told(Diff("1"))
    runner.say(Patch("1", "a" * 40, base64.b64encode(b"\xffdiff").decode(), 5, "x"))
    diff = await asked
    assert (diff.base, diff.patch) == ("a" * 40, b"\xffdiff")


@pytest.mark.parametrize(
    "path",
    ["a b/ü%?#.py", "../workspace/a.py", "./a.py", "/workspace/a.py", "a/../../b", ".", "%2E"],
)
async def test_the_digest_of_a_file_no_matter_its_name(
    client: SandboxClient, runner: ScriptedRunner, path: str
) -> None:
    asked = asyncio.create_task(client.digest(path))
    await runner.was_told(Digest("1", path))
    runner.say(Digests("1", None))
    assert await asked == ""


async def test_without_a_runner_the_sandbox_is_away(client: SandboxClient) -> None:
    with pytest.raises(SandboxAway, match="no runner is connected"):
        await client.submit(ORDER, 300)


async def test_a_connection_is_kept_over_a_restart_of_the_server(
    client: SandboxClient, server: ServerProcess
) -> None:
    ledger = (await client.info()).ledger
    await server.restart()
    assert (await client.info()).ledger == ledger


# --- who is not our sandbox ---


async def test_nobody_there_is_away(session: aiohttp.ClientSession) -> None:
    client = client_of(session, free_port(), make_identity(NAME))
    with pytest.raises(SandboxAway, match=r"fix-g1 \(127.0.0.1\).*may be starting"):
        await client.info()


@contextlib.asynccontextmanager
async def impostor(
    identity: Identity, folder: Path, answer: bytes = b""
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A TLS server that writes down what it is sent."""
    (folder / "crt").write_text(identity.certificate)
    (folder / "key").write_text(identity.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            heard.append(await reader.read(65536))
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


@pytest.mark.parametrize(
    ("theirs", "what"),
    [
        (lambda: make_identity(NAME), "another key of the same name"),
        (lambda: make_identity("another"), "another name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_stranger_at_the_address_is_told_nothing(
    session: aiohttp.ClientSession, tmp_path: Path, theirs: Callable[[], Identity], what: str
) -> None:
    async with impostor(theirs(), tmp_path) as (port, heard):
        client = client_of(session, port, make_identity(NAME))
        with pytest.raises(SandboxAway, match="is not sandbox fix-g1"):
            await client.info()
    assert b"".join(heard) == b"", what


async def test_the_name_is_checked_even_if_the_certificate_is_ours(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    ours = make_identity(NAME)
    async with impostor(ours, tmp_path) as (port, heard):
        with pytest.raises(SandboxAway, match="is not sandbox"):
            await client_of(session, port, ours, name="g2.other").info()
    assert b"".join(heard) == b""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", SandboxRefused),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope", SandboxRefused),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nnope", SandboxAway),
        (b"HTTP/1.1 302 Go\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
         SandboxRefused),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{", SandboxAway),
        (b"", SandboxAway),
        (b"\x00\x01\x02", SandboxAway),
    ],
)  # fmt: skip
async def test_an_answer_that_makes_no_sense_is_one_of_the_ports_errors(
    session: aiohttp.ClientSession, tmp_path: Path, answer: bytes, error: type[Exception]
) -> None:
    ours = make_identity(NAME)
    async with impostor(ours, tmp_path, answer) as (port, _):
        with pytest.raises(error):
            await client_of(session, port, ours).info()


def test_an_identity_does_not_show_its_secrets() -> None:
    identity = make_identity(NAME)
    assert identity.token not in repr(identity) and "PRIVATE" not in repr(identity)
    assert len(identity.token) == 64


def test_only_tls_1_3_is_spoken() -> None:
    assert pinned_context(make_identity(NAME).certificate).minimum_version == (
        ssl.TLSVersion.TLSv1_3
    )
