"""Sandboxes in memory: pods that come and go, and ledgers that remember."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ratchet.core.conditions import Reason
from ratchet.core.config import Config
from ratchet.core.facts import CallOrder, Enforcement, NetworkVerdict, Receipt, SandboxRef
from ratchet.core.records import Outcome, Patch
from ratchet.failpoints import Point, step
from ratchet.ports import (
    JournalAway,
    PortError,
    SandboxAway,
    SandboxGone,
    SandboxPending,
    SandboxReady,
    SandboxRefused,
    TaskRef,
)

ENFORCED = NetworkVerdict(Enforcement.ENFORCED, "Nothing that is denied could be reached.")
Tool = Callable[["FakePod", CallOrder], Receipt]


def plain_tool(pod: FakePod, order: CallOrder) -> Receipt:
    """The file tools work on the pod's files; everything else answers with its arguments.

    search_replace does not search: it puts its blocks in the place of the whole file.
    """
    arguments = json.loads(order.arguments)
    if order.tool == "write_file":
        pod.files[arguments["path"]] = arguments["content"]
        return Receipt(order.key, Outcome.OK, f"wrote {arguments['path']}")
    if order.tool in ("read_file", "search_replace"):
        if arguments["path"] not in pod.files:
            return Receipt(order.key, Outcome.FAILED, f"there is no file {arguments['path']}")
        if order.tool == "search_replace":
            pod.files[arguments["path"]] = arguments["content"]
            return Receipt(order.key, Outcome.OK, f"changed {arguments['path']}")
        return Receipt(order.key, Outcome.OK, pod.files[arguments["path"]])
    return Receipt(order.key, Outcome.OK, f"{order.tool} {order.arguments}", exit_code=0)


@dataclass(slots=True)
class FakePod:
    """One generation of a task's sandbox, with its ledger and its workspace."""

    generation: int
    ledger: str
    alive: bool = True
    claim: bool = False
    """Whether a claim outlives the pod, with its workspace and ledger."""
    ready: bool = True
    has_secret: bool = False
    epoch: int = 0
    files: dict[str, str] = field(default_factory=dict)
    receipts: dict[str, Receipt | None] = field(default_factory=dict)
    """By key; None while the call is reserved and has not ended."""
    orders: dict[str, CallOrder] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    """By key of a search_replace: the digest of its file when the key was reserved."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def runs(self, key: str) -> bool:
        """Whether a reserved call has not ended yet."""
        return self.alive and self.receipts[key] is None

    def digest(self, path: str) -> str:
        """`sha256:<hex>` of a file, empty if there is none."""
        text = self.files.get(path)
        return "" if text is None else "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class FakeSandboxes:
    """All sandboxes of a pretended cluster. `effects` is the outside ledger of what really ran."""

    tool: Tool = plain_tool
    tool_delay_s: float = 0.0
    duration: Callable[[CallOrder], float] | None = None
    """Seconds that a call takes; `tool_delay_s` for all where there is none."""
    latency_s: float = 0.0
    """Seconds that a request is on its way. It arrives even if nobody waits for its answer any more."""
    start_delay_s: float = 0.0
    waits: tuple[Reason, str] | None = None
    """What is said of a pod that is not ready, and with `hopeless` that waiting does not help."""
    hopeless: bool = False
    network: NetworkVerdict = ENFORCED
    """What each sandbox finds out about its network."""
    network_s: float = 0.0
    """How long that takes."""
    look_again_s: float = 0.1
    """How long a loop waits for a pod of which it hears nothing."""
    pods: dict[tuple[str, int], FakePod] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)
    began: Callable[[FakePod, CallOrder], None] = lambda _pod, _order: None
    """Told of each call that begins to run, for real."""
    removed: set[str] = field(default_factory=set)
    refusals: list[PortError] = field(default_factory=list)
    """Raised one by one when a sandbox is to be removed."""
    runs: set[asyncio.Task[Any]] = field(default_factory=set)
    fault: Callable[[str], None] = lambda _: None
    """Called with `before:<op>` and `after:<op>`; may raise SandboxAway."""

    def of(self, task: TaskRef, epoch: int) -> FakeSandbox:
        return FakeSandbox(self, task, epoch)

    def lose(self, task_uid: str, generation: int, *, claim_too: bool = True) -> None:
        """The pod is gone, with its claim if it had one, and whatever ran there has ended."""
        pod = self.pods[task_uid, generation]
        pod.alive, pod.claim = False, pod.claim and not claim_too
        pod.ended.set()

    def reveal_unknown(self, task_uid: str, generation: int) -> None:
        """The runner was lost: what was reserved gets the outcome Unknown."""
        pod = self.pods[task_uid, generation]
        for key, receipt in pod.receipts.items():
            if receipt is None:
                before = pod.before.get(key, "")
                pod.receipts[key] = Receipt(
                    key, Outcome.UNKNOWN, "the shell was lost", before=before
                )
        pod.ended.set()


@dataclass(slots=True)
class FakeSandbox:
    """The sandbox port over a pretended cluster."""

    home: FakeSandboxes
    task: TaskRef
    epoch: int
    generation: int = 0
    """Of the sandbox that answered last: calls go there and nowhere else."""
    _complete: FakePod | None = None
    """The pod that is known to have all that it needs."""

    async def prepare(
        self, config: Config, wanted: SandboxRef
    ) -> SandboxReady | SandboxPending | SandboxGone:
        self.home.fault("before:prepare")
        await asyncio.sleep(0)
        pod = self.home.pods.get((self.task.uid, wanted.generation))
        if pod is None and not wanted.ledger:
            pod = await step(Point.PREPARE_POD, partial(self._make, config, wanted), JournalAway)
        if pod is not None and not pod.alive and pod.claim:
            self.home.pods[self.task.uid, wanted.generation] = _made_again(pod)
            return SandboxPending(Reason.EVICTED, "the pod was evicted; it is made again")
        if pod is None or not pod.alive:
            return SandboxGone("the pod is gone")
        if not pod.ready and (not wanted.ledger or pod.claim) and self._complete is not pod:
            # Another owner made it, or we were interrupted: parts of it may be missing.
            await step(Point.PREPARE_SECRET, partial(self._make_secret, pod), JournalAway)
            self._complete = pod
        if not pod.ready:
            reason, message = self.home.waits or (Reason.SANDBOX_STARTING, "the pod is being made")
            return SandboxPending(reason, message, self.home.hopeless)
        self.generation = wanted.generation
        await step(Point.PREPARE_EPOCH, self._raise_epoch, SandboxAway)
        return SandboxReady(SandboxRef(wanted.generation, pod.ledger, f"pod-{wanted.generation}"))

    async def _make(self, config: Config, wanted: SandboxRef) -> FakePod:
        """Make the pod, or find the one that has its name."""
        await asyncio.sleep(0)
        ledger = f"{self.task.uid[:4]}-ledger-{wanted.generation}"
        claim = config.sandbox.claim is not None
        pod = FakePod(wanted.generation, ledger, claim=claim, ready=False)
        pod.files = {file.path: file.content or "" for file in config.files}
        return self.home.pods.setdefault((self.task.uid, wanted.generation), pod)

    async def _make_secret(self, pod: FakePod) -> None:
        """Make what the pod waits for; without it the pod never starts."""
        await asyncio.sleep(0)
        if pod.has_secret:
            return
        pod.has_secret = True
        if self.home.start_delay_s:
            asyncio.get_running_loop().call_later(self.home.start_delay_s, self._start, pod)
        else:
            self._start(pod)

    def _start(self, pod: FakePod) -> None:
        pod.ready = True

    async def _raise_epoch(self) -> None:
        await asyncio.sleep(0)
        self._pod()

    def _fence(self, pod: FakePod) -> None:
        if self.epoch < pod.epoch:
            raise SandboxRefused("stale_epoch", f"epoch {self.epoch} is below {pod.epoch}")
        pod.epoch = self.epoch

    def _pod(self) -> FakePod:
        """The pod that answered last. Whoever has not looked yet knows of none."""
        pod = self.home.pods.get((self.task.uid, self.generation))
        if pod is None or not pod.alive or not pod.ready:
            raise SandboxAway("no pod is known that answers")
        self._fence(pod)
        return pod

    async def changed(self, wanted: SandboxRef) -> None:
        await asyncio.sleep(self.home.look_again_s)

    async def network(self) -> NetworkVerdict:
        await asyncio.sleep(self.home.network_s)
        self._pod()
        return self.home.network

    async def run(self, order: CallOrder) -> Receipt:
        self.home.fault("before:run")
        submission = asyncio.create_task(self._submit(order))
        self.home.runs.add(submission)
        submission.add_done_callback(self._arrived)
        pod = await asyncio.shield(submission)
        while (receipt := pod.receipts[order.key]) is None:
            if not pod.alive:
                raise SandboxAway("the connection broke")
            pod.ended.clear()
            await pod.ended.wait()
        self.home.fault("after:run")
        return receipt

    async def _submit(self, order: CallOrder) -> FakePod:
        """Reserve the key and have the call run, unless the key is known."""
        await asyncio.sleep(self.home.latency_s)
        pod = self._pod()
        if order.key not in pod.receipts:
            pod.receipts[order.key] = None
            pod.orders[order.key] = order
            if order.tool == "search_replace":
                pod.before[order.key] = pod.digest(json.loads(order.arguments)["path"])
            work = asyncio.create_task(self._work(pod, order))
            self.home.runs.add(work)
            work.add_done_callback(self.home.runs.discard)
        elif pod.orders[order.key].digest != order.digest:
            raise SandboxRefused("conflict", f"key {order.key} was used for another call")
        return pod

    def _arrived(self, submission: asyncio.Task[FakePod]) -> None:
        self.home.runs.discard(submission)
        if not submission.cancelled():
            submission.exception()  # whoever still waits gets it; nobody else needs to hear of it

    async def _work(self, pod: FakePod, order: CallOrder) -> None:
        """The call takes effect half-way, unless it was ended before."""
        half = (self.home.duration(order) if self.home.duration else self.home.tool_delay_s) / 2
        self.home.effects.append(order.key)
        self.home.began(pod, order)
        await asyncio.sleep(half)
        if pod.runs(order.key):
            receipt = self.home.tool(pod, order)
            await asyncio.sleep(half)
            if pod.runs(order.key):
                pod.receipts[order.key] = replace(receipt, before=pod.before.get(order.key, ""))
        pod.ended.set()

    async def interrupt(self, order: CallOrder) -> Receipt | None:
        """None: it never began, and a request of it that is still on its way comes too late."""
        await asyncio.sleep(self.home.latency_s)
        pod = self._pod()
        pod.orders.setdefault(order.key, order)
        if order.key not in pod.receipts:
            pod.receipts[order.key] = Receipt(order.key, Outcome.CANCELLED, "[not run]")
        elif pod.receipts[order.key] is None:
            pod.receipts[order.key] = Receipt(order.key, Outcome.KILLED, "[killed]")
            pod.ended.set()
        receipt = pod.receipts[order.key]
        return None if receipt is None or receipt.outcome == Outcome.CANCELLED else receipt

    async def digest(self, path: str) -> str:
        return self._pod().digest(path)

    async def patch(self) -> Patch:
        self.home.fault("before:patch")
        text = json.dumps(self._pod().files, sort_keys=True)
        return Patch("0" * 40, hashlib.sha256(text.encode()).hexdigest(), len(text), text)

    async def remove(self) -> None:
        if self.home.refusals:
            raise self.home.refusals.pop(0)
        for (uid, _), pod in self.home.pods.items():
            if uid == self.task.uid:
                pod.alive = False
                pod.ended.set()
        self.home.removed.add(self.task.uid)


def _made_again(pod: FakePod) -> FakePod:
    """The next pod on the claim of a lost one. Its server finds calls that its runner was not given."""
    receipts: dict[str, Receipt | None] = {
        key: receipt or Receipt(key, Outcome.UNKNOWN, before=pod.before.get(key, ""))
        for key, receipt in pod.receipts.items()
    }
    return replace(
        pod, alive=True, ready=False, has_secret=False, receipts=receipts, ended=asyncio.Event()
    )
