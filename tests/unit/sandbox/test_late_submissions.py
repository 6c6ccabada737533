"""Submissions that come after their cancel, digests that take too long, calls that never end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Digests, FromServer, Hello, Outcome, Result, Run
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
        self.session: Session | None = cast(Session, self)
        self.shell = "shell-1"

    def send(self, message: FromServer) -> None:
        self.sent.append(message)

    def close(self) -> None:
        self.session = None

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


@pytest.fixture
def impatient(tmp_path: Path, link: Link) -> Iterator[Calls]:
    """Gives a runner hardly any time beyond the hard timeout."""
    ledger = Ledger.open(tmp_path / "impatient.db", UID)
    ledger.raise_epoch(1)
    calls = Calls(ledger, beyond_s=0.01)
    calls.attach(cast(RunnerLink, link))
    yield calls
    ledger.close()


def command(hard_timeout_s: float) -> Submission:
    return Submission(Call(KEY, "bash", "{}", "sha256:0", 1), {"command": "x"}, 30, hard_timeout_s)


async def test_a_call_that_a_connected_runner_never_ends_is_unknown_and_the_runner_must_dial_again(
    impatient: Calls, link: Link
) -> None:
    record = await impatient.submit(command(hard_timeout_s=0.01))

    ended = await impatient.wait(record, 10)

    assert ended.outcome is Outcome.UNKNOWN
    assert link.session is None
    link.session = cast(Session, link)
    again = await impatient.submit(command(hard_timeout_s=0.01))
    assert again == ended and len(link.sent) == 1, "a reserved key is never handed over twice"


async def test_a_call_that_ends_in_time_is_not_given_up(impatient: Calls, link: Link) -> None:
    await impatient.submit(command(hard_timeout_s=0.01))

    impatient.ended(cast(Session, link), Result(KEY, Outcome.OK, "done"))
    await asyncio.sleep(0.05)  # longer than it would have taken

    assert impatient.find(KEY).outcome is Outcome.OK
    assert link.session is not None


async def test_a_call_of_which_only_the_ledger_is_left_is_waited_for_too(
    impatient: Calls, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await impatient.submit(command(hard_timeout_s=30))
    impatient.stop()
    monkeypatch.setattr("ratchet_sandbox.server.calls.HARD_TIMEOUT_MAX_S", 0.01)
    restarted = Calls(impatient._ledger, beyond_s=0.01)
    restarted.attach(cast(RunnerLink, link))

    restarted.joined(cast(Session, link), Hello("word", 1, "shell-1", running=(KEY,)))

    assert (await restarted.wait(record, 10)).outcome is Outcome.UNKNOWN
