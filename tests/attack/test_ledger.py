"""Calls that come twice, late, torn, forged or not at all: each key runs at most once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from ratchet.ports import SandboxAway, SandboxRefused

from tests.attack.conftest import ON_ONE_LOOP
from tests.attack.raw import Raw, raw
from tests.cluster.local import machine
from tests.e2e.box import Box, Boxes, shown

pytestmark = ON_ONE_LOOP

RESENT = 100
turns = itertools.count(1000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(box: Box) -> AsyncIterator[Raw]:
    async with raw(box) as found:
        yield found


async def lines(box: Box, file: str) -> int:
    """How often a call that leaves a line has run."""
    told = await box.bash(f"cat {file} 2>/dev/null | wc -l")
    return int(told.content)


async def test_a_key_that_is_sent_a_hundred_times_at_once_runs_once(box: Box, server: Raw) -> None:
    turn = next(turns)
    answers = await asyncio.gather(
        *(server.put(turn, "echo ran >> hundred; sleep 0.2") for _ in range(RESENT))
    )
    assert {(status, found["outcome"]) for status, found in answers} == {(200, "Ok")}
    assert await lines(box, "hundred") == 1


async def test_a_key_that_is_sent_again_later_brings_the_record_and_runs_nothing(
    box: Box, server: Raw
) -> None:
    turn = next(turns)
    first = await server.put(turn, "echo ran >> later; date +%N")
    second = await server.put(turn, "echo ran >> later; date +%N")
    assert first == second
    assert await lines(box, "later") == 1


async def test_a_key_with_other_arguments_is_a_conflict_and_runs_nothing(
    box: Box, server: Raw
) -> None:
    turn = next(turns)
    await server.put(turn, "true")
    status, found = await server.put(turn, "echo ran >> conflict")
    assert (status, found["code"]) == (409, "conflict")
    assert await lines(box, "conflict") == 0


WRONG: dict[str, tuple[int, dict[str, Any]]] = {
    "a_digest_of_other_arguments": (400, {"digest": "sha256:" + "0" * 64}),
    "another_ledger": (409, {"ledger": "0" * 32}),
    "a_lower_epoch": (409, {"epoch": 0}),
    "a_negative_epoch": (400, {"epoch": -1}),
    "an_epoch_that_is_no_number": (400, {"epoch": "x"}),
    "an_epoch_beyond_all_bounds": (400, {"epoch": 2**63}),
    "arguments_that_are_no_json": (400, {"arguments": "{"}),
    "arguments_that_are_a_list": (400, {"arguments": "[]"}),
    "a_tool_that_is_a_number": (400, {"tool": 1}),
    "a_negative_timeout": (400, {"hardTimeoutSeconds": -1}),
    "an_endless_timeout": (400, {"softTimeoutSeconds": 1e99}),
    "lone_surrogates": (400, {"tool": "\ud800"}),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
async def test_refused(box: Box, server: Raw, case: tuple[int, dict[str, Any]]) -> None:
    wanted, change = case
    status, found = await server.put(next(turns), "echo ran >> wrong", **change)
    assert status == wanted, found
    assert found["message"], found
    assert await lines(box, "wrong") == 0


BODIES = {
    "no_json": b"{",
    "a_list": b"[]",
    "nothing": b"",
    "deep_nesting": b"[" * 200_000,
    "a_megabyte": b'{"tool": "' + b"x" * 1_000_000 + b'"}',
    "not_utf8": b'{"tool": "\xff\xfe"}',
}


@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES.keys())
async def test_a_body_is_refused(server: Raw, data: bytes) -> None:
    status, found = await server.ask("PUT", server.path(next(turns)), data=data)
    assert status in (400, 413), found
    assert (await server.info())["ledger"] == server.ledger


PATHS = {
    "a_key_of_another_task": "/v1/calls/11111111-1111-1111-1111-111111111111/1/0",
    "a_key_that_is_none": "/v1/calls/x/y/z",
    "a_key_with_a_way_out": "/v1/calls/..%2f..%2fetc/1/0",
    "turn_zero": "/v1/calls/{uid}/0/0",
    "a_number_without_end": "/v1/calls/{uid}/" + "9" * 200 + "/0",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
async def test_a_key_is_refused(server: Raw, path: str) -> None:
    status, found = await server.ask(
        "PUT", path.replace("{uid}", server.uid), body=server.order("echo ran >> wrong")
    )
    assert status in (400, 404), found


FILES = {
    "parent": "../ratchet/secret/token",
    "encoded_parent": "..%2f..%2fetc%2fpasswd",
    "absolute": "%2fetc%2fshadow",
    "a_folder": ".",
    "a_device": "%2fdev%2fzero",
    "a_process": "%2fproc%2f1%2fenviron",
    "too_long": "x" * 5000,
}


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
async def test_a_file_is_not_given(server: Raw, path: str) -> None:
    status, found = await server.ask("GET", f"/v1/files/{path}")
    assert status in (400, 404), found


async def test_a_link_out_of_the_workspace_is_not_followed(box: Box, server: Raw) -> None:
    await box.bash("ln -s /etc/passwd link; ln -s /etc folder")
    for path in ("link", "folder/passwd"):
        status, found = await server.ask("GET", f"/v1/files/{path}")
        assert status in (400, 404), found


async def test_a_call_that_was_cancelled_before_it_came_never_runs(box: Box, server: Raw) -> None:
    turn = next(turns)
    fence = {"epoch": server.epoch, "ledger": server.ledger}
    await server.ask("POST", server.path(turn) + "/cancel", body=fence)
    status, found = await server.put(turn, "echo ran >> cancelled")
    assert (status, found["code"]) == (409, "withdrawn")
    assert await lines(box, "cancelled") == 0


async def test_a_call_that_is_cancelled_twice_ends_once(server: Raw) -> None:
    turn = next(turns)
    fence = {"epoch": server.epoch, "ledger": server.ledger}
    running = asyncio.create_task(server.put(turn, "sleep 50", wait=20))
    await server.until_reserved(server.key(turn))
    one, two = await asyncio.gather(
        *(server.ask("POST", server.path(turn) + "/cancel", body=fence) for _ in range(2))
    )
    _, ended = await running
    assert one[1]["outcome"] == two[1]["outcome"] == ended["outcome"] == "Killed"


async def test_a_stopped_owner_cannot_run_anything_after_the_next_one_came(
    fresh: Box, boxes: Boxes
) -> None:
    later = boxes.again(fresh, epoch=2)
    await later.ready()
    async with raw(fresh) as server:
        status, found = await server.put(next(turns), "echo ran >> stale")
    assert (status, found["code"]) == (409, "stale_epoch")
    assert (await later.bash("ls stale")).outcome == "Failed"


async def killed(box: Box, container: str) -> None:
    """SIGKILL from the node to the first process of a container."""
    statuses = (await box.object())["status"]["containerStatuses"]
    (found,) = (status for status in statuses if status["name"] == container)
    await asyncio.to_thread(machine.kill_container, found["containerID"])


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.1, 0.5], ids=lambda s: f"after_{s}_s")
async def test_a_server_killed_in_mid_call_runs_nothing_twice(fresh: Box, delay_s: float) -> None:
    order = fresh.order("bash", command="echo ran >> once; sleep 1; echo through")
    calling = asyncio.create_task(fresh.sandbox.run(order))
    await asyncio.sleep(delay_s)
    await killed(fresh, "server")
    try:
        receipt = await calling
    except SandboxAway:
        receipt = None
    await fresh.ready()
    again = await fresh.sandbox.run(order)
    assert receipt is None or receipt.outcome == again.outcome, shown(receipt)
    assert again.outcome in ("Ok", "Unknown"), shown(again)
    assert await lines(fresh, "once") <= 1


@pytest.mark.usefixtures("local")
async def test_a_shell_container_killed_in_mid_call_is_an_unknown_outcome(fresh: Box) -> None:
    order = fresh.order("bash", command="echo ran >> once; sleep 30")
    calling = asyncio.create_task(fresh.sandbox.run(order))
    async with raw(fresh) as server:
        await server.until_reserved(order.key)
    await killed(fresh, "shell")
    receipt = await calling
    assert receipt.outcome == "Unknown", shown(receipt)
    await fresh.ready()
    again = await fresh.sandbox.run(order)
    assert again.outcome == "Unknown", shown(again)
    assert await lines(fresh, "once") <= 1


@pytest.mark.usefixtures("local")
async def test_a_result_outlives_the_server_that_recorded_it(fresh: Box) -> None:
    order = fresh.order("bash", command="echo ran >> once; date +%N")
    first = await fresh.sandbox.run(order)
    await killed(fresh, "server")
    await fresh.ready()
    again = await fresh.sandbox.run(order)
    assert (again.outcome, again.content) == (first.outcome, first.content)
    assert await lines(fresh, "once") == 1


LOWERED = "import resource; resource.prlimit(1, resource.RLIMIT_FSIZE, (1000, 1000))"


async def test_limits_that_a_command_lowers_cost_its_own_task_and_change_no_record(
    fresh: Box,
) -> None:
    # The first process of the shell's container is of the commands' user. gVisor keeps one set of
    # limits for the first processes of all containers of a pod, so there the server's is lowered too.
    first = fresh.order("bash", command="echo ran >> once; date +%N")
    before = await fresh.sandbox.run(first)
    with contextlib.suppress(SandboxAway):
        await fresh.bash(f"python3 -c '{LOWERED}'")
    with contextlib.suppress(SandboxAway, SandboxRefused):
        assert await lines(fresh, "once") == 1
    async with raw(fresh) as server:
        path = f"/v1/calls/{first.key}?epoch={server.epoch}&ledger={server.ledger}"
        status, known = await server.ask("GET", path)
        assert (status, known["content"]) == (200, before.content), known
        assert (await server.info())["ledger"] == fresh.ref.ledger
