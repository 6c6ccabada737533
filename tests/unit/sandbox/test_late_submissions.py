"""Submissions that come after their cancel, and files whose digest takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Digests, FromServer, Run
from ratchet_sandbox.server.calls import Calls, Submission
from ratchet_sandbox.server.ledger import Call, Ledger
from ratchet_sandbox.server.link import Answer, RunnerLink, RunnerSlow, Session
from ratchet_sandbox.server.refusal import Refusal

from tests.unit.sandbox.servers import UID

KEY = f"{UID}/1/0"


class Link:
    """A runner that is connected, and answers questions when it is let."""

    def __init__(self) -> None:
        self.sent: list[FromServer] = []
        self.answers = asyncio.Event()
        self.asked = asyncio.Event()
        self.too_slow = False
        self.session = cast(Session, self)
        self.shell = "shell-1"

    def send(self, message: FromServer) -> None:
        self.sent.append(message)

    async def ask(self, make: Callable[[str], FromServer], timeout: float) -> Answer:
        self.asked.set()
        if self.too_slow:
            raise RunnerSlow("the runner did not answer")
        await self.answers.wait()
        return Digests("1", "sha256:" + "1" * 64)


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def calls(tmp_path: Path, link: Link) -> Iterator[Calls]:
    ledger = Ledger.open(tmp_path / "ledger.db", UID)
    ledger.raise_epoch(1)
    calls = Calls(ledger)
    calls.attach(cast(RunnerLink, link))
    yield calls
    ledger.close()


def change(epoch: int = 1) -> Submission:
    arguments: dict[str, Any] = {"path": "a.py", "content": "x"}
    return Submission(Call(KEY, "search_replace", "{}", "sha256:0", epoch), arguments, 30, 30)


async def cancelled_before_it_came(calls: Calls) -> None:
    with pytest.raises(Refusal) as refusal:
        await calls.cancel(KEY)
    assert refusal.value.body["code"] == "absent"


async def test_a_call_that_was_said_to_be_absent_when_it_was_cancelled_never_runs(
    calls: Calls, link: Link
) -> None:
    submitting = asyncio.create_task(calls.submit(change()))
    await link.asked.wait()
    await cancelled_before_it_came(calls)
    link.answers.set()
    with pytest.raises(Refusal) as refusal:
        await submitting
    assert refusal.value.body["code"] == "withdrawn"
    assert not link.sent


async def test_the_next_owner_may_submit_it_all_the_same(calls: Calls, link: Link) -> None:
    link.answers.set()
    await cancelled_before_it_came(calls)
    assert (await calls.submit(change(epoch=2))).state == "Reserved"
    assert [message.key for message in link.sent if isinstance(message, Run)] == [KEY]


async def test_a_file_that_is_too_large_to_be_read_in_time_does_not_hold_up_its_call(
    calls: Calls, link: Link
) -> None:
    link.too_slow = True
    record = await calls.submit(change())
    assert record.meta == protocol.Meta()
    assert [message.key for message in link.sent if isinstance(message, Run)] == [KEY]
