"""What may happen to a call: reserve it, hand it over once, wait for it, cancel it, give it up.

A key is handed to a runner in the same step of the event loop that reserved it on disk, and
nowhere else. So a reserved key can never be handed over twice, whoever dies.
"""

import asyncio
import json
import logging
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, Final

from ratchet_sandbox import protocol
from ratchet_sandbox.failpoints import Point, reach
from ratchet_sandbox.protocol import Cancel, Hello, Meta, Result
from ratchet_sandbox.server import refusal
from ratchet_sandbox.server.deadlines import BEYOND_S, Deadlines
from ratchet_sandbox.server.ledger import Call, Ledger, Record
from ratchet_sandbox.server.link import RunnerAway, RunnerLink, RunnerSlow, Session

log = logging.getLogger(__name__)

CANCEL_WAIT_S: Final = 5.0
DIGEST_TIMEOUT_S: Final = 10.0
HARD_TIMEOUT_MAX_S: Final = 3600.0
"""The longest hard timeout that a class can give: for calls of which only the ledger is left."""
_CUT: Final = "\n[... {cut} bytes left out by the sandbox's server ...]\n"


@dataclass(frozen=True, slots=True)
class Submission:
    """A call with what the runner needs besides the ledger's part of it."""

    call: Call
    arguments: dict[str, Any]
    soft_timeout_seconds: float
    hard_timeout_seconds: float


class Calls:
    """The calls of this sandbox: the ledger, who waits, and which runner has what."""

    def __init__(self, ledger: Ledger, beyond_s: float = BEYOND_S) -> None:
        self._ledger = ledger
        self._deadlines = Deadlines(self._overdue, beyond_s)
        self._link: RunnerLink | None = None
        self._waiting: defaultdict[str, set[asyncio.Future[Record]]] = defaultdict(set)
        self._cancelled: set[str] = set()
        self._withdrawn: dict[str, int] = {}
        """Keys that were cancelled while absent, with the epoch that was told so."""
        self._stopping = False

    def attach(self, link: RunnerLink) -> None:
        self._link = link

    @property
    def session(self) -> Session | None:
        return self._link.session if self._link else None

    def fence(self, epoch: int, ledger: str) -> None:
        """Refuse another ledger's or an older owner's request; a higher epoch is remembered."""
        if ledger != self._ledger.id:
            raise refusal.wrong_ledger(ledger, self._ledger)
        if epoch < self._ledger.epoch:
            raise refusal.stale_epoch(epoch, self._ledger.epoch)
        self._ledger.raise_epoch(epoch)

    def find(self, key: str) -> Record:
        record = self._ledger.find(key)
        if record is None:
            raise refusal.absent(key)
        return record

    async def submit(self, submission: Submission) -> Record:
        """The record of this call; it is reserved and handed over if it was absent."""
        call = submission.call
        if record := self._known(call):
            return record
        meta = await self._before(submission)
        # Others ran while the runner was asked: look again, and from here on do not await.
        self.fence(call.epoch, self._ledger.id)
        if record := self._known(call):
            return record
        if self._withdrawn.get(call.key, -1) >= call.epoch:
            raise refusal.withdrawn(call.key)
        session = self.session
        if session is None:
            raise refusal.runner_away("no runner is connected")
        reach(Point.RESERVING)
        record = self._ledger.reserve(call, session.shell, meta)
        reach(Point.RESERVED)
        session.send(
            protocol.Run(call.key, call.tool, submission.arguments,
                         submission.soft_timeout_seconds, submission.hard_timeout_seconds)
        )  # fmt: skip
        self._deadlines.begin(call.key, submission.hard_timeout_seconds)
        reach(Point.HANDED_OVER)
        return record

    async def wait(self, record: Record, seconds: float) -> Record:
        """The record when it is finished or the time is over, as it is then."""
        if record.finished or seconds <= 0 or self._stopping:
            return record
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._waiting[record.key].add(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return record
        finally:
            self._waiting[record.key].discard(future)
            if not self._waiting[record.key]:
                del self._waiting[record.key]

    async def cancel(self, key: str) -> Record:
        """Have the call's process session killed; the record when it ended, or after 5 s.

        Who is told that a key is absent takes it for never run. So a submission of that owner, or
        of one before it, that is still on its way comes too late. (None outlives this process.)
        """
        if self._ledger.find(key) is None:
            self._withdrawn[key] = self._ledger.epoch
        record = self.find(key)
        if not record.finished:
            self._cancelled.add(key)  # kept, in case the runner is just dialling again
            if self.session:
                self.session.send(Cancel(key))
        return await self.wait(record, CANCEL_WAIT_S)

    def stop(self) -> None:
        """Answer all who wait with the record as it is."""
        self._stopping = True
        self._deadlines.close()
        for key in list(self._waiting):
            self._wake(self.find(key))

    # --- what the runner says ---

    def joined(self, session: Session, hello: Hello) -> None:
        """Compare what is open here with what the runner has; give up the calls nobody has."""
        held = {*hello.running, *hello.finished}
        open_calls = self._ledger.unfinished()
        lost = [r for r in open_calls if r.shell != session.shell or r.key not in held]
        for record in self._ledger.finish_unknown(lost):
            log.warning("call %s: outcome unknown, its runner is gone", record.key)
            self._done(record)
        waiting = {r.key for r in open_calls} - {r.key for r in lost}
        for key in hello.finished:
            session.send(protocol.Resend(key) if key in waiting else protocol.Ack(key))
        for key in self._cancelled & waiting:
            session.send(Cancel(key))
        for key in waiting:
            self._deadlines.begin(key, HARD_TIMEOUT_MAX_S)

    def ended(self, session: Session, result: Result) -> None:
        """Write a result down and acknowledge it. Keys that this runner was not given: ignored."""
        record = self._ledger.find(result.key)
        if record is None or record.shell != session.shell:
            log.warning("a result for a call that was not given to this runner was ignored")
            return
        if not record.finished:
            content, cut = protocol.clip(result.content, protocol.CONTENT_LIMIT, _CUT)
            meta = _bounded(replace(result.meta, truncated=result.meta.truncated or cut))
            reach(Point.RESULT_RECEIVED)
            self._done(self._ledger.finish(record, result.outcome, content, meta))
            reach(Point.RESULT_STORED)
        session.send(protocol.Ack(result.key))

    # --- inside ---

    def _known(self, call: Call) -> Record | None:
        record = self._ledger.find(call.key)
        if record and record.digest != call.digest:
            raise refusal.conflict(call.key)
        return record

    async def _before(self, submission: Submission) -> Meta:
        """What the reservation must remember so that an unknown outcome can be checked."""
        path = submission.arguments.get("path")
        if submission.call.tool not in protocol.CHECKED_TOOLS or not isinstance(path, str):
            return Meta()
        if self._link is None:
            raise refusal.runner_away("no runner is connected")
        try:
            answer = await self._link.ask(lambda id: protocol.Digest(id, path), DIGEST_TIMEOUT_S)
        except RunnerSlow as error:
            # Asked again it would be as slow, for ever; without a digest its outcome, if it is
            # lost, is reported instead of looked at.
            log.warning("call %s is reserved without its file's digest: %s",
                        submission.call.key, error)  # fmt: skip
            return Meta()
        except RunnerAway as error:
            raise refusal.runner_away(str(error)) from error
        # An Error (no such file, bad path) is for the tool itself to report.
        return _bounded(Meta(before=getattr(answer, "before", None)))

    def _overdue(self, key: str) -> None:
        """Give up a call that its runner should have ended long ago, and that runner with it."""
        record = self.find(key)
        if not record.finished:
            log.error("call %s: outcome unknown, its runner did not end it in time", key)
            try:
                (record,) = self._ledger.finish_unknown([record])
            except sqlite3.Error as error:
                log.error("ledger failed: %s; the call is given up later", error)
                return
        self._done(record)
        if self.session and self.session.shell == record.shell:
            self.session.close()  # the true runner dials again

    def _done(self, record: Record) -> None:
        self._deadlines.end(record.key)
        self._cancelled.discard(record.key)
        self._wake(record)

    def _wake(self, record: Record) -> None:
        for future in self._waiting.get(record.key, ()):
            if not future.done():
                future.set_result(record)


def _bounded(meta: Meta) -> Meta:
    """The runner's facts, each of a shape and size that is safe to store and pass on."""
    return replace(
        meta,
        spill=meta.spill[: protocol.PATH_LIMIT] if meta.spill else None,
        duration_ms=max(meta.duration_ms, 0),
        before=_digest(meta.before),
        after=_digest(meta.after),
    )


def _digest(text: str | None) -> str | None:
    return text if text and protocol.is_digest(text) else None


def parse_arguments(text: str) -> dict[str, Any]:
    """The arguments of a call; `Refusal` if they are not a JSON object of bounded size."""
    if len(text.encode()) > protocol.ARGUMENTS_LIMIT:
        raise refusal.too_large(f"arguments are over {protocol.ARGUMENTS_LIMIT} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refusal.bad_request("arguments are not JSON text of an object") from error
    if not isinstance(value, dict):
        raise refusal.bad_request("arguments are not JSON text of an object")
    return value
