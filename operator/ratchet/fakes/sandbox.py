"""Sandboxes in memory: pods that come and go, and ledgers that remember."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from ratchet.core.conditions import Reason
from ratchet.core.config import Config
from ratchet.core.facts import CallOrder, Receipt, SandboxRef
from ratchet.core.records import Outcome, Patch
from ratchet.ports import (
    SandboxAway,
    SandboxGone,
    SandboxPending,
    SandboxReady,
    SandboxRefused,
    TaskRef,
)

Tool = Callable[["FakePod", CallOrder], Receipt]


def plain_tool(pod: FakePod, order: CallOrder) -> Receipt:
    """write_file and read_file work on the pod's files; everything else answers with its arguments."""
    arguments = json.loads(order.arguments)
    if order.tool == "write_file":
        pod.files[arguments["path"]] = arguments["content"]
        return Receipt(order.key, Outcome.OK, f"wrote {arguments['path']}")
    if order.tool == "read_file":
        if arguments["path"] not in pod.files:
            return Receipt(order.key, Outcome.FAILED, f"there is no file {arguments['path']}")
        return Receipt(order.key, Outcome.OK, pod.files[arguments["path"]])
    return Receipt(order.key, Outcome.OK, f"{order.tool} {order.arguments}", exit_code=0)


@dataclass(slots=True)
class FakePod:
    """One generation of a task's sandbox, with its ledger and its workspace."""

    generation: int
    ledger: str
    alive: bool = True
    ready: bool = True
    epoch: int = 0
    files: dict[str, str] = field(default_factory=dict)
    receipts: dict[str, Receipt | None] = field(default_factory=dict)
    """By key; None while the call is reserved and has not ended."""
    orders: dict[str, CallOrder] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class FakeSandboxes:
    """All sandboxes of a pretended cluster. `effects` is the outside ledger of what really ran."""

    tool: Tool = plain_tool
    tool_delay_s: float = 0.0
    start_delay_s: float = 0.0
    pods: dict[tuple[str, int], FakePod] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    runs: set[asyncio.Task[None]] = field(default_factory=set)
    fault: Callable[[str], None] = lambda _: None
    """Called with `before:<op>` and `after:<op>`; may raise SandboxAway."""

    def of(self, task: TaskRef, epoch: int) -> FakeSandbox:
        return FakeSandbox(self, task, epoch)

    def lose(self, task_uid: str, generation: int) -> None:
        """The pod and its volumes are gone, and whatever ran there has ended."""
        self.pods[task_uid, generation].alive = False

    def reveal_unknown(self, task_uid: str, generation: int) -> None:
        """The runner was lost: what was reserved gets the outcome Unknown."""
        pod = self.pods[task_uid, generation]
        for key, receipt in pod.receipts.items():
            if receipt is None:
                pod.receipts[key] = Receipt(key, Outcome.UNKNOWN, "the shell was lost")
        pod.ended.set()


@dataclass(slots=True)
class FakeSandbox:
    """The sandbox port over a pretended cluster."""

    home: FakeSandboxes
    task: TaskRef
    epoch: int

    async def prepare(
        self, config: Config, wanted: SandboxRef
    ) -> SandboxReady | SandboxPending | SandboxGone:
        self.home.fault("before:prepare")
        await asyncio.sleep(0)
        pod = self.home.pods.get((self.task.uid, wanted.generation))
        if pod is None and not wanted.ledger:
            pod = FakePod(wanted.generation, f"{self.task.uid[:4]}-ledger-{wanted.generation}")
            pod.files = {file.path: file.content or "" for file in config.files}
            self.home.pods[self.task.uid, wanted.generation] = pod
            if self.home.start_delay_s:
                pod.ready = False
                asyncio.get_running_loop().call_later(self.home.start_delay_s, self._start, pod)
        if pod is None or not pod.alive:
            return SandboxGone("the pod is gone")
        if not pod.ready:
            return SandboxPending(Reason.SANDBOX_STARTING, "the pod is being made")
        self._fence(pod)
        pod.epoch = self.epoch
        return SandboxReady(SandboxRef(wanted.generation, pod.ledger, f"pod-{wanted.generation}"))

    def _start(self, pod: FakePod) -> None:
        pod.ready = True

    def _fence(self, pod: FakePod) -> None:
        if self.epoch < pod.epoch:
            raise SandboxRefused("stale_epoch", f"epoch {self.epoch} is below {pod.epoch}")

    def _pod(self) -> FakePod:
        mine = [
            pod for (uid, _), pod in self.home.pods.items() if uid == self.task.uid and pod.alive
        ]
        if not mine:
            raise SandboxAway("no pod answers")
        self._fence(mine[-1])
        return mine[-1]

    async def changed(self, wanted: SandboxRef) -> None:
        await asyncio.sleep(0.1)

    async def run(self, order: CallOrder) -> Receipt:
        self.home.fault("before:run")
        await asyncio.sleep(0)
        pod = self._pod()
        if order.key not in pod.receipts:
            pod.receipts[order.key] = None
            pod.orders[order.key] = order
            work = asyncio.create_task(self._work(pod, order))
            self.home.runs.add(work)
            work.add_done_callback(self.home.runs.discard)
        elif pod.orders[order.key].digest != order.digest:
            raise SandboxRefused("conflict", f"key {order.key} was used for another call")
        while (receipt := pod.receipts[order.key]) is None:
            pod.ended.clear()
            await pod.ended.wait()
            if not pod.alive:
                raise SandboxAway("the connection broke")
        self.home.fault("after:run")
        return receipt

    async def _work(self, pod: FakePod, order: CallOrder) -> None:
        if order.tool == "search_replace":
            before = await self.digest(json.loads(order.arguments)["path"])
        else:
            before = ""
        self.home.effects.append(order.key)
        receipt = self.home.tool(pod, order)
        await asyncio.sleep(self.home.tool_delay_s)
        if pod.alive and pod.receipts[order.key] is None:
            pod.receipts[order.key] = Receipt(
                receipt.key, receipt.outcome, receipt.content, receipt.exit_code, before=before
            )
        pod.ended.set()

    async def interrupt(self, order: CallOrder) -> Receipt | None:
        pod = self._pod()
        if order.key not in pod.receipts:
            return None
        if pod.receipts[order.key] is None:
            pod.receipts[order.key] = Receipt(order.key, Outcome.KILLED, "[killed]")
            pod.ended.set()
        return pod.receipts[order.key]

    async def digest(self, path: str) -> str:
        text = self._pod().files.get(path)
        return "" if text is None else "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    async def patch(self) -> Patch:
        self.home.fault("before:patch")
        text = json.dumps(self._pod().files, sort_keys=True)
        return Patch("0" * 40, hashlib.sha256(text.encode()).hexdigest(), len(text), text)

    async def remove(self) -> None:
        for (uid, _), pod in self.home.pods.items():
            if uid == self.task.uid:
                pod.alive = False
        self.home.removed.add(self.task.uid)
