"""The ledger: which calls were reserved, which finished and how. SQLite, synchronous=FULL.

Every method that changes something returns only after the change is on disk. A call's row goes
from absent to Reserved to Finished and never back, and a Finished row never changes.
"""

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from ratchet_sandbox.protocol import Meta, Outcome

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
_RECORD: Final = "key, tool, digest, state, outcome, content, meta, shell"


class LedgerError(Exception):
    """The ledger cannot be used at all: unreadable, in use, or of another task."""


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

    def __init__(self, connection: sqlite3.Connection, id: str, task_uid: str, epoch: int) -> None:
        self._db = connection
        self.id = id
        self.task_uid = task_uid
        self.epoch = epoch

    @classmethod
    def open(cls, path: Path, task_uid: str) -> "Ledger":
        """Open or create the ledger of this task; raises `LedgerError` with what to do."""
        try:
            return cls._open(path, task_uid)
        except sqlite3.Error as error:
            raise LedgerError(
                f"ledger {path} cannot be opened: {error}; it may be damaged or in use by another "
                "process. Delete the sandbox pod: the task then gets a new sandbox generation"
            ) from error

    @classmethod
    def _open(cls, path: Path, task_uid: str) -> "Ledger":
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
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
        _sync_folder(path.parent)
        if facts["task_uid"] != task_uid:
            db.close()
            raise LedgerError(
                f"ledger {path} belongs to task {facts['task_uid']}, not to {task_uid}: "
                "the volume was mounted into the wrong pod"
            )
        return cls(db, facts["id"], task_uid, int(facts["epoch"]))

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
            self._db.execute("UPDATE facts SET value = ? WHERE name = 'epoch'", (str(epoch),))
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
        self._db.execute(
            "INSERT INTO calls VALUES (?, ?, ?, ?, 'Reserved', NULL, '', ?, ?, ?, ?, NULL)",
            (call.key, call.digest, call.tool, call.arguments, _meta_text(meta), shell, call.epoch,
             time.time()),
        )  # fmt: skip
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


def _record(row: tuple[Any, ...]) -> Record:
    key, tool, digest, state, outcome, content, meta, shell = row
    end = Outcome(outcome) if outcome is not None else None
    return Record(key, tool, digest, state, end, content, Meta(**json.loads(meta)), shell)


def _meta_text(meta: Meta) -> str:
    return json.dumps(asdict(meta), separators=(",", ":"))


def _sync_folder(path: Path) -> None:
    """Make the new file's name survive a crash of the node, not only of this process."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
