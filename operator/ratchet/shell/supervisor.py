"""One loop per task, in the one process that holds the Lease.

The supervisor is told what was seen of tasks and pods, by a watch that may
miss, repeat and reorder; so what it is told only wakes somebody up. Whether a
loop may run is decided by its claim, from a fresh read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

from ratchet.core import events as e
from ratchet.core.verdict import ArgumentCheck
from ratchet.ports import (
    Clock,
    Gate,
    JournalAway,
    Journals,
    Model,
    OwnershipLost,
    PortError,
    RuleCheck,
    Sandboxes,
    TaskRef,
)
from ratchet.shell.pacing import Pacer
from ratchet.shell.performing import Outside
from ratchet.shell.runner import Listener, Runner

_log = logging.getLogger("ratchet.supervisor")

RETRY_S, LONGEST_RETRY_S = 5.0, 60.0
"""Between looks at a task that cannot begin yet, because something that it names is missing.

The looks get rarer, since the task may also be gone without the watch having said so.
"""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Between tries after a failure."""


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """What a watch event says of a task."""

    task: TaskRef
    epoch: int = 0
    cancel: bool = False
    finished: bool = False
    priority: int = 0
    gone: bool = False
    """Deleted, or being deleted."""


@dataclass(frozen=True, slots=True)
class PodSeen:
    """What a watch event says of a sandbox pod."""

    task: TaskRef
    ready: bool
    gone: bool
    pod: str = ""
    """Uid of the pod: a task has a later one while the earlier one still goes."""


class MayRun(Protocol):
    """Whether this process may run loops at all."""

    @property
    def held(self) -> bool:
        """True until the renew deadline of the Lease has passed."""


@dataclass(frozen=True, slots=True)
class World:
    """Where the supervisor's loops get their ports from."""

    journals: Journals
    model: Model
    sandboxes: Sandboxes
    clock: Clock
    gate: Gate
    check: ArgumentCheck
    rules: RuleCheck
    random: Callable[[], float]
    holder: str
    listeners: Callable[[TaskRef], tuple[Listener, ...]] = lambda _: ()


@dataclass(slots=True)
class _Entry:
    seen: TaskSeen
    work: asyncio.Task[None] | None = None
    runner: Runner | None = None
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something new was seen, to end a pause early."""


class Supervisor:
    """Starts, wakes and stops loops. All methods are called in the event loop's thread."""

    def __init__(self, world: World, leadership: MayRun) -> None:
        self._world = world
        self._leadership = leadership
        self._pacer = Pacer()
        self._entries: dict[str, _Entry] = {}
        self._removals: set[asyncio.Task[None]] = set()
        self._removing_now: set[str] = set()
        self._pods: dict[str, dict[str, bool]] = {}
        """Sandbox pods that were seen and not yet seen to be gone, by the uids of task and pod, and
        whether they were ready."""
        self._stopped = False

    @property
    def running(self) -> int:
        """How many loops there are."""
        return sum(entry.runner is not None for entry in self._entries.values())

    # --- what was seen ---------------------------------------------------------------------------

    def task_seen(self, seen: TaskSeen) -> None:
        """Take note of a task's state; start its loop if it needs one."""
        entry = self._entries.get(seen.task.uid)
        if seen.gone:
            self._forget(seen)
            return
        if entry is None:
            entry = self._entries[seen.task.uid] = _Entry(seen)
        before, entry.seen = entry.seen, seen
        if entry.runner is not None:
            if seen.cancel:
                entry.runner.notify(e.CancelSeen())
            if seen.priority != before.priority:
                entry.runner.notify(e.PriorityChanged(seen.priority))
        if not seen.finished:
            entry.looked.set()
            self._start(entry)
        else:
            self._remove_left_over(entry)

    def pod_seen(self, seen: PodSeen) -> None:
        """Wake the loop of a pod that is not as it was, and remove pods that nobody needs."""
        was_ready = self._note_pod(seen)
        entry = self._entries.get(seen.task.uid)
        if entry is not None and entry.runner is not None:
            if seen.gone or not seen.ready:
                entry.runner.notify(e.SandboxChanged())
            elif not was_ready:
                entry.runner.notify(e.SandboxChanged(came_up=True))
            return
        if entry is not None and entry.seen.finished and not seen.gone:
            self._remove(entry.seen)

    def _note_pod(self, seen: PodSeen) -> bool:
        """Remember this pod, or forget it; whether it was ready before."""
        pods = self._pods.setdefault(seen.task.uid, {})
        was_ready = pods.pop(seen.pod, False)
        if not seen.gone:
            pods[seen.pod] = seen.ready
        elif not pods:
            del self._pods[seen.task.uid]
        return was_ready

    @property
    def known(self) -> frozenset[str]:
        """Uids of the tasks that were seen and not seen to be gone."""
        return frozenset(self._entries)

    def not_there(self, uids: Collection[str]) -> None:
        """Tasks that exist no longer, although nobody said so."""
        for uid in uids:
            if uid in self._entries:
                self._forget(replace(self._entries[uid].seen, gone=True))

    def leadership_changed(self) -> None:
        """Start what may run now, and remove what is left over, or stop everything."""
        for entry in self._entries.values():
            if not self._leadership.held:
                if entry.work is not None:
                    entry.work.cancel()
            elif entry.seen.finished:
                self._remove_left_over(entry)
            else:
                self._start(entry)

    async def stop(self) -> None:
        """End all loops. What they have under way is found again by the next owner."""
        self._stopped = True
        work = [entry.work for entry in self._entries.values() if entry.work is not None]
        for task in (*work, *self._removals):
            task.cancel()
        await asyncio.gather(*work, *self._removals, return_exceptions=True)

    # --- loops -----------------------------------------------------------------------------------

    def _wanted(self, entry: _Entry) -> bool:
        """Whether this task should have a loop here."""
        return self._leadership.held and not (entry.seen.finished or entry.seen.gone)

    def _start(self, entry: _Entry) -> None:
        if self._stopped or entry.work is not None or not self._wanted(entry):
            return
        entry.work = asyncio.create_task(self._work(entry), name=f"task {entry.seen.task}")
        entry.work.add_done_callback(lambda _: self._ended(entry))

    def _ended(self, entry: _Entry) -> None:
        entry.work = entry.runner = None
        if self._leadership.held:
            self._start(entry)

    def _forget(self, seen: TaskSeen) -> None:
        entry = self._entries.pop(seen.task.uid, None)
        if entry is not None:
            entry.seen = seen
            if entry.work is not None:
                entry.work.cancel()
        self._remove(seen)

    async def _work(self, entry: _Entry) -> None:
        """Claim and run, until the task has ended. Never raises but when it is cancelled."""
        pause, retry = FIRST_PAUSE_S, RETRY_S
        while self._wanted(entry):
            entry.looked.clear()
            try:
                if await self._claim_and_run(entry):
                    return
                pause = FIRST_PAUSE_S
                await self._pause(entry, retry)
                retry = min(2 * retry, LONGEST_RETRY_S)
                continue
            except (JournalAway, OwnershipLost) as error:
                _log.warning("task %s: %s; trying again in %g s", entry.seen.task, error, pause)
            except PortError as error:
                _log.error("task %s: %s; trying again in %g s", entry.seen.task, error, pause)
            # A bug of ours in one task must not stop it for ever nor touch the others: log it, go on.
            except Exception:  # noqa: BLE001
                _log.exception("task %s: the loop broke; going on in %g s", entry.seen.task, pause)
            finally:
                entry.runner = None
            await self._world.clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _claim_and_run(self, entry: _Entry) -> bool:
        """Whether the task has ended. False: it cannot begin yet."""
        world, task = self._world, entry.seen.task
        async with self._pacer.turn():
            if not self._wanted(entry):
                return False
            claimed = await world.journals.claim(task, world.holder, world.clock.now())
        if claimed is None:
            return False
        claim, journal = claimed
        outside = Outside(
            journal,
            world.model,
            world.sandboxes.of(task, claim.epoch),
            world.clock,
            world.gate,
            world.check,
            world.rules,
            world.random,
        )
        entry.runner = Runner(claim, outside, world.listeners(task), entry.seen.priority)
        if entry.seen.cancel:
            entry.runner.notify(e.CancelSeen())
        state = await entry.runner.run()
        if state.lost:
            raise OwnershipLost(f"epoch {claim.epoch} is not ours any more")
        return True

    async def _pause(self, entry: _Entry, seconds: float) -> None:
        """Wait, or go on at once when something new was seen of the task since its claim began."""
        try:
            async with asyncio.timeout(seconds):
                await entry.looked.wait()
        except TimeoutError:
            return

    # --- what nobody needs any more --------------------------------------------------------------

    def _remove_left_over(self, entry: _Entry) -> None:
        """Remove what an owner left behind that was lost after the end."""
        if entry.seen.task.uid in self._pods and entry.runner is None:
            self._remove(entry.seen)

    def _remove(self, seen: TaskSeen) -> None:
        """Remove the sandbox of a task that has ended or is gone; one such removal at a time.

        And again for a pod that is seen later: a request for it may have been long on its way.
        """
        if seen.task.uid in self._removing_now or self._stopped or not self._leadership.held:
            return
        self._removing_now.add(seen.task.uid)
        task = asyncio.create_task(self._removing(seen))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _removing(self, seen: TaskSeen) -> None:
        pause = FIRST_PAUSE_S
        try:
            while self._leadership.held:
                try:
                    await self._world.sandboxes.of(seen.task, seen.epoch).remove()
                    return
                except PortError as error:
                    _log.warning(
                        "task %s: its sandbox could not be removed: %s; trying again in %g s",
                        seen.task, error, pause,
                    )  # fmt: skip
                await self._world.clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self._removing_now.discard(seen.task.uid)
