"""The ledger as a file: what is written stays, and nothing is written twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.server.ledger import Call, Ledger, LedgerError

CALL = Call("u/1/0", "bash", '{"command":"true"}', "sha256:" + "0" * 64, 1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path / "ledger.db", "u")
    yield ledger
    ledger.close()


def reopened(ledger: Ledger, path: Path) -> Ledger:
    ledger.close()
    return Ledger.open(path / "ledger.db", "u")


def test_a_key_is_absent_then_reserved_then_finished(ledger: Ledger) -> None:
    assert ledger.find(CALL.key) is None
    reserved = ledger.reserve(CALL, "s1", Meta())
    assert ledger.find(CALL.key) == reserved
    assert not reserved.finished and reserved.outcome is None
    finished = ledger.finish(reserved, Outcome.FAILED, "no", Meta(exit_code=2))
    assert ledger.find(CALL.key) == finished
    assert (finished.outcome, finished.content, finished.meta.exit_code) == ("Failed", "no", 2)


def test_id_epoch_and_calls_survive_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    ledger.raise_epoch(7)
    reserved = ledger.reserve(CALL, "s1", Meta(before="sha256:x"))
    id = ledger.id
    again = reopened(ledger, tmp_path)
    assert (again.id, again.epoch) == (id, 7)
    assert again.unfinished() == [reserved]
    again.close()


def test_a_key_cannot_be_reserved_twice(ledger: Ledger) -> None:
    ledger.reserve(CALL, "s1", Meta())
    with pytest.raises(sqlite3.IntegrityError):
        ledger.reserve(CALL, "s2", Meta())


def test_a_finished_record_never_changes(ledger: Ledger) -> None:
    reserved = ledger.reserve(CALL, "s1", Meta())
    finished = ledger.finish(reserved, Outcome.OK, "first", Meta())
    ledger.finish(reserved, Outcome.FAILED, "second", Meta())
    ledger.finish_unknown([reserved])
    assert ledger.find(CALL.key) == finished


def test_the_epoch_is_never_lowered(ledger: Ledger, tmp_path: Path) -> None:
    ledger.raise_epoch(3)
    ledger.raise_epoch(2)
    again = reopened(ledger, tmp_path)
    assert again.epoch == 3
    again.close()


def test_the_digest_from_before_the_run_outlives_the_result(ledger: Ledger) -> None:
    reserved = ledger.reserve(CALL, "s1", Meta(before="sha256:then"))
    assert ledger.finish(reserved, Outcome.OK, "", Meta(before="sha256:forged")).meta.before == (
        "sha256:then"
    )


def test_calls_nobody_can_tell_about_are_unknown(ledger: Ledger) -> None:
    reserved = ledger.reserve(CALL, "s1", Meta(before="sha256:then"))
    (record,) = ledger.finish_unknown([reserved])
    assert record == ledger.find(CALL.key)
    assert (record.outcome, record.meta.before) == ("Unknown", "sha256:then")
    assert ledger.unfinished() == []


def test_each_ledger_has_its_own_id(tmp_path: Path, ledger: Ledger) -> None:
    other = Ledger.open(tmp_path / "other.db", "u")
    assert other.id != ledger.id
    other.close()


def test_a_ledger_of_another_task_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.close()
    with pytest.raises(LedgerError, match="belongs to task u, not to v"):
        Ledger.open(tmp_path / "ledger.db", "v")


def test_a_damaged_ledger_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database " * 1000)
    with pytest.raises(LedgerError, match="Delete the sandbox pod"):
        Ledger.open(tmp_path / "ledger.db", "u")


def test_writes_wait_for_the_disk(ledger: Ledger) -> None:
    assert ledger.durability() == ("wal", "FULL")
