"""A ledger whose file or volume fails: refused with a sentence or intact, and nothing runs twice."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.server.ledger import Call, Ledger, LedgerError, Record
from ratchet_sandbox.server.spare import SPARE_BYTES, Spare

from tests.unit.sandbox.servers import (
    UID,
    Http,
    ScriptedRunner,
    ServerProcess,
    eventually,
    running_server,
)

KEY, NEXT = f"{UID}/1/0", f"{UID}/1/1"
PAGE = 4096
VOLUME = SPARE_BYTES + 4 * 1024 * 1024


def call(number: int) -> Call:
    return Call(f"{UID}/1/{number}", "bash", '{"command":"true"}', "sha256:" + "0" * 64, 1)


def done(ledger: Ledger, number: int) -> Record:
    reserved = ledger.reserve(call(number), "s", Meta())
    return ledger.finish(reserved, Outcome.OK, f"result {number} " * 100, Meta())


# --- torn and damaged files ----------------------------------------------------------------------


def copied(ledger: Path, to: Path) -> Path:
    to.mkdir()
    for file in ledger.parent.glob("ledger.db*"):
        shutil.copy(file, to)
    return to / ledger.name


def torn(file: Path, at: int, *, garbage: bool) -> None:
    """The file as if a write had stopped there; with garbage, what was not written is something."""
    size = file.stat().st_size
    os.truncate(file, at)
    if garbage:
        with file.open("ab") as end:
            end.write(b"\xa5" * (size - at))


@pytest.mark.parametrize("garbage", [False, True], ids=["cut", "garbage"])
def test_a_write_that_is_torn_anywhere_was_never_made(tmp_path: Path, garbage: bool) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(path, UID)
    before = done(ledger, 0)
    log = Path(f"{path}-wal")
    began = log.stat().st_size
    ledger.reserve(call(1), "s", Meta())
    ended = log.stat().st_size
    assert ended > began, "the reservation is the newest part of the log"
    for number, at in enumerate((*range(began, ended, 97), ended - 1, ended)):
        copy = copied(path, tmp_path / f"torn-{number}")
        torn(Path(f"{copy}-wal"), at, garbage=garbage)
        after = Ledger.open(copy, UID)
        assert after.find(call(0).key) == before
        assert (after.find(call(1).key) is None) == (at < ended)
        assert after.id == ledger.id
        after.close()
    ledger.close()


@pytest.fixture
def full_file(tmp_path: Path) -> tuple[Path, list[Record]]:
    """A ledger file of some pages, closed, and what it holds."""
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(path, UID)
    records = [done(ledger, number) for number in range(40)]
    ledger.close()
    return path, records


def test_no_damaged_page_makes_a_call_look_absent(
    full_file: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    path, records = full_file
    pages = path.stat().st_size // PAGE
    refused = 0
    for page in range(pages):
        copy = copied(path, tmp_path / f"page-{page}")
        with copy.open("r+b") as file:
            file.seek(page * PAGE)
            file.write(bytes(PAGE))
        try:
            ledger = Ledger.open(copy, UID)
        except LedgerError as error:
            refused += "Delete the sandbox pod" in str(error)
            continue
        assert [ledger.find(record.key) for record in records] == records
        ledger.close()
    assert refused >= pages - 1 > 5


def test_a_file_that_is_too_short_is_refused(
    full_file: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    path, _ = full_file
    size = path.stat().st_size
    for number, at in enumerate((50, PAGE - 1, PAGE, PAGE + 100, size // 2, size - PAGE)):
        copy = copied(path, tmp_path / f"short-{number}")
        os.truncate(copy, at)
        with pytest.raises(LedgerError, match="Delete the sandbox pod"):
            Ledger.open(copy, UID)


def test_an_empty_file_is_another_ledger(full_file: tuple[Path, list[Record]]) -> None:
    """So that an operator that knows the one before takes it for lost, and doubts what ran."""
    path, records = full_file
    known = Ledger.open(path, UID)
    id = known.id
    known.close()
    os.truncate(path, 0)
    ledger = Ledger.open(path, UID)
    assert ledger.id != id and ledger.find(records[0].key) is None
    ledger.close()


# --- whose ledger --------------------------------------------------------------------------------


async def test_a_server_refuses_the_ledger_of_another_task(tmp_path: Path) -> None:
    """As on a claim or volume that somebody uses a second time."""
    async with running_server(tmp_path) as (server, http):
        runner = ScriptedRunner(server, auto=Outcome.OK)
        await runner.join()
        assert (await http.put(KEY, wait=10))[1]["outcome"] == "Ok"
        server.end(signal.SIGTERM)
        held = server.ledger.read_bytes()

        uid = "ffffffff-5555-4444-8888-121212121212"
        other = ServerProcess(tmp_path, server.identity, task_uid=uid)
        server.word.unlink()
        other.start()
        code, log = other.ended()
        assert code == 1 and f"belongs to task {UID}" in log
        assert not other.word.exists(), "no runner is let in"

        await server.restart()
        assert (await http.get(KEY))[1]["outcome"] == "Ok"
        assert server.ledger.read_bytes()[:PAGE] == held[:PAGE]


async def test_a_second_server_on_the_same_ledger_is_kept_out(tmp_path: Path) -> None:
    async with running_server(tmp_path) as (server, http):
        (tmp_path / "second").mkdir()
        second = ServerProcess(tmp_path / "second", ledger=server.ledger)
        second.start()
        code, log = second.ended()
        assert code == 1 and "in use by another process" in log
        assert (await http.info())["ledger"] == http.ledger


# --- volumes that fail ---------------------------------------------------------------------------


def in_volume(folder: Path, *, size: int = VOLUME, read_only: bool = False) -> tuple[str, ...]:
    """Have a command see a small file system of its own at this folder; it ends with the command."""
    rights = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    steps = [f"mount -t tmpfs -o size={size} ledger {folder}"]
    if read_only:
        steps.append(f"mount -o remount,ro {folder}")
    return "unshare", *rights, "--mount", "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh"


@contextlib.asynccontextmanager
async def small_volume(folder: Path) -> AsyncIterator[tuple[ServerProcess, Http, Path]]:
    """A server with its ledger on a small volume, and that volume as seen from here."""
    (folder / "volume").mkdir()
    ledger = folder / "volume" / "ledger.db"
    wrapper = in_volume(folder / "volume")
    async with running_server(folder, ledger=ledger, wrapper=wrapper) as (server, http):
        yield server, http, Path(f"/proc/{server.pid}/root{folder}/volume")


def fill(volume: Path, name: str) -> None:
    """Write until there is no room at all."""
    with (volume / name).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(PAGE))


async def test_on_a_full_volume_a_call_can_still_run_that_makes_room(tmp_path: Path) -> None:
    async with small_volume(tmp_path) as (server, http, volume):
        runner = ScriptedRunner(server, auto=Outcome.OK)
        await runner.join()
        fill(volume, "of-the-workspace")
        status, record = await http.put(KEY, wait=10)
        assert (status, record["outcome"]) == (200, "Ok")
        (volume / "of-the-workspace").unlink()
        assert (await http.put(NEXT, wait=10))[1]["outcome"] == "Ok"
        assert (volume / "spare").stat().st_size == SPARE_BYTES, "kept back for the next time"
        assert runner.runs == [KEY, NEXT]


async def test_a_volume_without_any_room_begins_no_call_and_says_why(tmp_path: Path) -> None:
    async with small_volume(tmp_path) as (server, http, volume):
        runner = ScriptedRunner(server, auto=Outcome.OK)
        await runner.join()
        said: dict[str, str] = {}
        for number in range(200):  # each fills the volume again, and a little later that is the end
            fill(volume, f"of-the-workspace-{number}")
            order = {"command": "x" * 30_000, "number": number}
            status, body = await http.put(f"{UID}/2/{number}", str(order), wait=10)
            if status == 500:
                said = body
                break
        assert said["code"] == "ledger_full" and "Free room" in said["message"]
        key = f"{UID}/2/{number}"
        assert key not in runner.runs and (await http.get(key))[1]["code"] == "absent"
        for file in volume.glob("of-the-workspace-*"):
            file.unlink()
        assert (await http.put(key, str(order), wait=10))[1]["outcome"] == "Ok"
        assert runner.runs.count(key) == 1


async def test_a_read_only_volume_is_refused(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    wrapper = in_volume(volume, read_only=True)
    server = ServerProcess(tmp_path, ledger=volume / "ledger.db", wrapper=wrapper)
    server.start()
    code, log = server.ended()
    assert code == 1 and "may be full or read-only" in log and "Delete the sandbox pod" in log


@contextlib.contextmanager
def failing_writes(server: ServerProcess) -> Iterator[None]:
    """While this lasts every write of the server to a file fails (RLIMIT_FSIZE, EFBIG)."""
    limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limits)


async def test_a_reservation_that_cannot_be_written_hands_nothing_over(tmp_path: Path) -> None:
    async with running_server(tmp_path) as (server, http):
        runner = ScriptedRunner(server, auto=Outcome.OK)
        await runner.join()
        with failing_writes(server):
            status, body = await http.put(KEY, wait=10)
            assert (status, body["code"]) == (500, "ledger_failed")
            assert "Nothing was begun" in body["message"] and runner.runs == []
        assert (await http.put(KEY, wait=10))[1]["outcome"] == "Ok"
        assert runner.runs == [KEY]


async def test_a_result_that_cannot_be_written_is_brought_again(tmp_path: Path) -> None:
    async with running_server(tmp_path) as (server, http):
        runner = ScriptedRunner(server)
        await runner.join()
        await http.put(KEY)
        await runner.was_given(KEY)
        with failing_writes(server):
            runner.finish(KEY, "done")
            await runner.was_closed()
            assert (await http.get(KEY))[1]["state"] == "Reserved"
        await eventually(server.word.exists, "a new word is there")
        await runner.join(finished=(KEY,))
        runner.finish(KEY, "done")
        assert (await http.get(KEY, wait=10))[1]["content"] == "done"
        assert runner.runs == [KEY]


async def test_an_epoch_that_cannot_be_written_is_not_raised(tmp_path: Path) -> None:
    async with running_server(tmp_path) as (server, http):
        with failing_writes(server):
            body = {"epoch": 5, "ledger": http.ledger}
            status, _ = await http.ask("PUT", "/v1/epoch", json=body)
            assert status == 500
        assert (await http.info())["epoch"] == 0


def test_a_spare_that_finds_no_room_leaves_none_behind(tmp_path: Path) -> None:
    spare = Spare(tmp_path / "spare", size=1 << 60)
    spare.fill()
    assert not (tmp_path / "spare").exists() and not spare.spend()
