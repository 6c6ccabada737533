"""The ledger: which calls were reserved, which finished and how. SQLite, synchronous=FULL.

Every method that changes something returns only after the change is on disk. A call's row goes
from absent to Reserved to Finished and never back, and a Finished row never changes.
"""

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.server.spare import Spare

RESERVED: Final = "Reserved"
FINISHED: Final = "Finished"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    tool TEXT NOT NULL,
    arguments TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('Reserved', 'Finished')),
    outcome TEXT CHECK ((outcome IS NULL) = (state = 'Reserved')),
    content TEXT NOT NULL,
    meta TEXT NOT NULL,
    shell TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    reserved_at REAL NOT NULL,
    finished_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS unfinished ON calls (key) WHERE state = 'Reserved';
"""
_Written = TypeVar("_Written")
_RECORD: Final = "key, tool, digest, state, outcome, content, meta, shell"


_WAY_OUT: Final = (
    "Delete the sandbox pod, and the PersistentVolumeClaim of the task if it has one: the task then "
    "gets a new sandbox generation"
)


class LedgerError(Exception):
    """The ledger cannot be used at all: unreadable, damaged, in use, or of another task."""


def is_full(error: sqlite3.Error) -> bool:
    """Whether a write failed because there is no room on the volume."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


@dataclass(frozen=True, slots=True)
class Call:
    """A call to be reserved. `arguments` is the canonical JSON text that `digest` covers."""

    key: str
    tool: str
    arguments: str
    digest: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Record:
    """A call as the ledger has it. `outcome` is None while `state` is Reserved.

    `shell`: id of the runner process it was reserved for.
    """

    key: str
    tool: str
    digest: str
    state: str
    outcome: Outcome | None
    content: str
    meta: Meta
    shell: str

    @property
    def finished(self) -> bool:
        return self.state == FINISHED


class Ledger:
    """An open ledger file. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        id: str,
        task_uid: str,
        epoch: int,
        spare: Spare | None = None,
    ) -> None:
        self._db = connection
        self._spare = spare
        self.id = id
        self.task_uid = task_uid
        self.epoch = epoch

    @classmethod
    def open(cls, path: Path, task_uid: str) -> "Ledger":
        """Open or create the ledger of this task; raises `LedgerError` with what to do."""
        spare = Spare(path.with_name("spare"))
        try:
            return cls._open_with(spare, path, task_uid)
        except sqlite3.Error as error:
            raise LedgerError(
                f"ledger {path} cannot be opened: {error}; its volume may be full or read-only, or "
                f"it may be damaged or in use by another process. {_WAY_OUT}"
            ) from error

    @classmethod
    def _open_with(cls, spare: Spare, path: Path, task_uid: str) -> "Ledger":
        """Opening needs a little room, too."""
        try:
            return cls._open(path, task_uid, spare)
        except sqlite3.OperationalError as error:
            if not is_full(error) or not spare.spend():
                raise
            return cls._open(path, task_uid, spare)

    @classmethod
    def _open(cls, path: Path, task_uid: str, spare: Spare) -> "Ledger":
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            facts = _facts(db, task_uid)
            if facts["task_uid"] != task_uid:
                raise LedgerError(
                    f"ledger {path} belongs to task {facts['task_uid']}, not to {task_uid}: "
                    "the volume was mounted into the wrong pod"
                )
            (sound,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if sound != "ok":
                # A row that its index does not show would look absent, and run a second time.
                raise LedgerError(f"ledger {path} is damaged: {sound}. {_WAY_OUT}")
        except (sqlite3.Error, LedgerError):
            db.close()
            raise
        _sync_folder(path.parent)
        spare.fill()
        return cls(db, facts["id"], task_uid, int(facts["epoch"]), spare)

    def close(self) -> None:
        self._db.close()

    def durability(self) -> tuple[str, str]:
        """Journal mode and synchronous setting in force."""
        (mode,) = self._db.execute("PRAGMA journal_mode").fetchone()
        (level,) = self._db.execute("PRAGMA synchronous").fetchone()
        return mode, {2: "FULL", 3: "EXTRA"}.get(level, "unsafe")

    def raise_epoch(self, epoch: int) -> None:
        """Remember a higher epoch; the caller has checked that it is not lower."""
        if epoch > self.epoch:
            statement = "UPDATE facts SET value = ? WHERE name = 'epoch'"
            self._write(lambda: self._db.execute(statement, (str(epoch),)))
            self.epoch = epoch

    def find(self, key: str) -> Record | None:
        """The record of this key, None if it was never reserved."""
        row = self._db.execute(f"SELECT {_RECORD} FROM calls WHERE key = ?", (key,)).fetchone()
        return _record(row) if row else None

    def unfinished(self) -> list[Record]:
        """All reserved calls without an end, by key."""
        rows = self._db.execute(
            f"SELECT {_RECORD} FROM calls WHERE state = 'Reserved' ORDER BY key"
        )
        return [_record(row) for row in rows]

    def reserve(self, call: Call, shell: str, meta: Meta) -> Record:
        """Reserve a key that is absent; `sqlite3.IntegrityError` if it is not."""
        row = (call.key, call.digest, call.tool, call.arguments, _meta_text(meta), shell, call.epoch,
               time.time())  # fmt: skip
        statement = "INSERT INTO calls VALUES (?, ?, ?, ?, 'Reserved', NULL, '', ?, ?, ?, ?, NULL)"
        self._write(lambda: self._db.execute(statement, row))
        return Record(call.key, call.tool, call.digest, RESERVED, None, "", meta, shell)

    def finish(self, record: Record, outcome: Outcome, content: str, meta: Meta) -> Record:
        """Write the end of a reserved call. `meta.before` of the reservation is kept."""
        meta = replace(meta, before=record.meta.before or meta.before)
        done = replace(record, state=FINISHED, outcome=outcome, content=content, meta=meta)
        self._finish([done])
        return done

    def finish_unknown(self, records: Iterable[Record]) -> list[Record]:
        """Write down that nobody will ever tell how these calls ended; one transaction."""
        done = [replace(r, state=FINISHED, outcome=Outcome.UNKNOWN) for r in records]
        if done:
            self._finish(done)
        return done

    def _finish(self, records: list[Record]) -> None:
        now = time.time()
        rows = [(r.outcome, r.content, _meta_text(r.meta), now, r.key) for r in records]
        self._write(lambda: self._finish_rows(rows))
        if self._spare is not None:
            self._spare.fill()

    def _finish_rows(self, rows: list[tuple[Any, ...]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "UPDATE calls SET state = 'Finished', outcome = ?, content = ?, meta = ?, "
                "finished_at = ? WHERE key = ? AND state = 'Reserved'",
                rows,
            )
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _write(self, write: Callable[[], _Written]) -> _Written:
        """Do it; where the volume is full, once more with the spare room."""
        try:
            return write()
        except sqlite3.OperationalError as error:
            if not is_full(error) or self._spare is None or not self._spare.spend():
                raise
            return write()


def _record(row: tuple[Any, ...]) -> Record:
    key, tool, digest, state, outcome, content, meta, shell = row
    end = Outcome(outcome) if outcome is not None else None
    return Record(key, tool, digest, state, end, content, Meta(**json.loads(meta)), shell)


def _meta_text(meta: Meta) -> str:
    return json.dumps(asdict(meta), separators=(",", ":"))


def _facts(db: sqlite3.Connection, task_uid: str) -> dict[str, str]:
    """The facts of the ledger, which are made if it is new."""
    # Exclusive: WAL then needs no shared memory file, and a second server is kept out.
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("BEGIN EXCLUSIVE")
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    new = {"id": uuid.uuid4().hex, "task_uid": task_uid, "epoch": "0"}
    db.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", new.items())
    facts: dict[str, str] = dict(db.execute("SELECT name, value FROM facts").fetchall())
    db.execute("COMMIT")
    return facts


def _sync_folder(path: Path) -> None:
    """Make the new file's name survive a crash of the node, not only of this process."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
