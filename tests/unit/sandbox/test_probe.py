"""What the server finds out about its pod's network, by connecting to what a policy denies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from ratchet_sandbox.server.probe import Finding, Probe, Target, Verdict, targets_of

from tests.unit.sandbox.servers import free_port, running_server

HERE = "127.0.0.1"
WAIT_S = 10.0


def probe(*targets: Target, lasts_s: float = 0.6, fresh_s: float = 30.0) -> Probe:
    return Probe(targets, lasts_s=lasts_s, try_s=0.3, fresh_s=fresh_s)


async def verdict(*targets: Target) -> Finding:
    return await probe(*targets).finding(WAIT_S)


class Listener:
    """Something that listens, and may stop to."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.target = Target(HERE, server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        self._server.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), HERE, 0)
    yield Listener(server)
    server.close()


@pytest.fixture
def deaf() -> Iterator[Target]:
    """What takes no connection and says nothing, as behind a filter that drops packets."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind((HERE, 0))
        deaf.listen(0)
        for _ in range(4):  # its queue is full then
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        yield Target(HERE, deaf.getsockname()[1])


def closed() -> Target:
    return Target(HERE, free_port())


async def test_one_target_that_answers_shows_that_nothing_is_enforced(listener: Listener) -> None:
    found = await verdict(closed(), listener.target)
    assert found.verdict is Verdict.OPEN
    assert f"{listener.target} answered" in found.message
    assert "does not enforce" in found.message


async def test_targets_that_refuse_and_targets_that_are_silent_show_a_policy(deaf: Target) -> None:
    found = await verdict(closed(), deaf)
    assert found.verdict is Verdict.ENFORCED
    assert f"{deaf} did not answer" in found.message and "ECONNREFUSED" in found.message


async def test_a_policy_that_is_applied_late_is_waited_for(listener: Listener) -> None:
    asked = asyncio.create_task(probe(listener.target, lasts_s=8).finding(WAIT_S))
    asyncio.get_running_loop().call_later(0.4, listener.stop)
    found = await asked
    assert found.verdict is Verdict.ENFORCED


async def test_without_targets_nothing_is_known() -> None:
    found = await verdict()
    assert found.verdict is Verdict.UNKNOWN and "Nothing was tried" in found.message


async def test_an_error_of_the_pods_own_network_is_no_policy() -> None:
    """A link-local address without an interface cannot even be tried."""
    found = await verdict(closed(), Target("fe80::1", 443))
    assert found.verdict is Verdict.UNKNOWN and "[fe80::1]:443 E" in found.message


async def test_who_does_not_wait_is_told_that_it_is_being_tried(listener: Listener) -> None:
    asked = probe(listener.target)
    assert (await asked.finding(0)).verdict is Verdict.PROBING
    assert (await asked.finding(WAIT_S)).verdict is Verdict.OPEN


async def test_a_finding_is_given_again_for_a_while_and_then_found_anew(
    listener: Listener,
) -> None:
    kept, renewed = probe(listener.target, fresh_s=300), probe(listener.target, fresh_s=0)
    for one in (kept, renewed):
        assert (await one.finding(WAIT_S)).verdict is Verdict.OPEN
    listener.stop()
    assert (await kept.finding(WAIT_S)).verdict is Verdict.OPEN
    assert (await renewed.finding(WAIT_S)).verdict is Verdict.ENFORCED


async def test_stopping_gives_up_what_is_being_tried(deaf: Target) -> None:
    asked = Probe((deaf,), try_s=60)
    waiting = asyncio.create_task(asked.finding(60))
    await asyncio.sleep(0)
    await asked.stop()
    assert (await waiting).verdict is Verdict.PROBING


def test_targets_are_addresses_with_ports() -> None:
    assert targets_of(" 10.96.0.1:443,[fd00::1]:8080, ") == (
        Target("10.96.0.1", 443), Target("fd00::1", 8080)
    )  # fmt: skip
    assert [str(target) for target in targets_of("[fd00:0::1]:1,1.2.3.4:5")] == [
        "[fd00::1]:1", "1.2.3.4:5"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["kubernetes:443", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:x", "::1"])
def test_what_is_no_address_with_a_port_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is no address and port"):
        targets_of(text)


async def test_the_server_answers_whom_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_PROBE_TARGETS", str(closed()))
    async with running_server(tmp_path) as (_, http):
        status, found = await http.ask("GET", "/v1/network?wait=10")
        assert (status, found["verdict"]) == (200, "Enforced") and "ECONNREFUSED" in found[
            "message"
        ]
        status, found = await http.ask("GET", "/v1/network", token="guessed")
        assert (status, found["code"]) == (401, "unauthorized")
