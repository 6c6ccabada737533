"""The sandbox port over a real cluster: pods that come and go, and the servers in them."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

import aiohttp

from ratchet.api import names
from ratchet.build.generation import Generation
from ratchet.build.podstate import PodState, Stage, sandbox_condition
from ratchet.build.settings import SandboxSettings
from ratchet.core.conditions import Reason
from ratchet.core.config import Config
from ratchet.core.facts import CallOrder, Enforcement, NetworkVerdict, Receipt, SandboxRef
from ratchet.core.records import Outcome, Patch
from ratchet.edges import patches
from ratchet.edges.certificates import server_name
from ratchet.edges.egress import ServiceMissing, read_egress
from ratchet.edges.holding import hold
from ratchet.edges.kube import Api
from ratchet.edges.pods import Pods, Refused
from ratchet.edges.sandbox import PORT, WAIT_S, Found, SandboxClient, new_session
from ratchet.edges.startfiles import FileMissing, read_files
from ratchet.failpoints import Point, step
from ratchet.ports import (
    SandboxAway,
    SandboxGone,
    SandboxPending,
    SandboxReady,
    SandboxRefused,
    TaskRef,
)

LOOK_AGAIN_S: Final = 2.0
"""How long `changed` waits: the watch wakes the loop earlier, this is for what a watch misses."""
INTERRUPT_S: Final = 4.5
"""Within what the end of an interrupted call must be known; the port grants 5 s."""

NETWORK_UNTOLD: Final = NetworkVerdict(
    Enforcement.UNKNOWN, f"The sandbox did not say within {WAIT_S:g} s what it found out."
)

_FATES: Final = frozenset({Reason.EVICTED, Reason.NODE_LOST, Reason.SANDBOX_DISK_FULL})
Seen = SandboxReady | SandboxPending | SandboxGone


class KubeSandboxes:
    """Sandboxes of claimed tasks (ports.Sandboxes). Close it after the last loop has ended."""

    def __init__(
        self,
        api: Api,
        settings: SandboxSettings,
        *,
        port: int = PORT,
        wait_s: float = WAIT_S,
        interrupt_s: float = INTERRUPT_S,
    ) -> None:
        self.api = api
        self.pods = Pods(api, settings)
        self.port = port
        self.wait_s = wait_s
        self.interrupt_s = interrupt_s
        self._session: aiohttp.ClientSession | None = None

    def of(self, task: TaskRef, epoch: int) -> KubeSandbox:
        return KubeSandbox(self, task, epoch)

    async def close(self) -> None:
        """Close all connections to sandboxes."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = new_session()
        return self._session


class KubeSandbox:
    """The sandbox side of one claim (ports.Sandbox)."""

    def __init__(self, home: KubeSandboxes, task: TaskRef, epoch: int) -> None:
        self._home = home
        self._task = task
        self._epoch = epoch
        self._hard_timeout_s = 300
        self._on_claim = False
        self._known: tuple[str, SandboxClient] | None = None
        """The client of the pod that answered last, with the pod's uid and address."""
        self._complete = ""
        """Uid of the pod that is known to have all that it needs."""
        self._fate: PodState | None = None
        """Why the pod that was looked at last is about to end, or has ended."""

    # --- the pod ---

    async def prepare(self, config: Config, wanted: SandboxRef) -> Seen:
        """See ports.Sandbox. A missing pod is made only while no ledger of it is known, or where
        that ledger is on a claim which is still there."""
        self._hard_timeout_s = config.sandbox.hard_timeout_s
        self._on_claim = config.sandbox.claim is not None
        generation = self._generation(wanted)
        pod = await self._home.pods.find(generation)
        state = self._with_fate(sandbox_condition(pod))
        if config.sandbox.claim is not None and (pod is None or _over(state) or _never_ran(pod)):
            held = await self._held(generation, pod, state, config, wanted)
            if held is not None:
                return held
        if pod is None and (config.sandbox.claim is not None or not wanted.ledger):
            return await self._make(generation, None, config, used=bool(wanted.ledger))
        if pod is None or _over(state):
            return SandboxGone(state.message, state.reason)
        if _owner(pod) != self._task.uid:
            return _hopeless(f"There is a pod {generation.name} of somebody else; delete it.")
        if state.stage is Stage.READY:
            return await self._greet(generation, pod, wanted)
        if not wanted.ledger or _never_ran(pod):
            # Another owner made it, or we were interrupted: parts of it may be missing. One that
            # never ran is also completed where a ledger is known: the pod with that ledger was lost
            # while its name was being written down. The new one says so, once it can start.
            uid, used = pod["metadata"]["uid"], bool(wanted.ledger)
            return await self._completed(generation, uid, config, state, used=used)
        return _pending(state)

    def _with_fate(self, state: PodState) -> PodState:
        """What the pod's object says; of one that is gone, also what it said last."""
        if state.reason in _FATES:
            self._fate = state
        elif state.stage is Stage.READY:
            self._fate = None
        if state.stage is not Stage.GONE or self._fate is None:
            return state
        text = f"{state.message} Before that: {self._fate.message}"
        return PodState(Stage.GONE, self._fate.reason, text)

    async def _held(
        self,
        generation: Generation,
        pod: dict[str, Any] | None,
        state: PodState,
        config: Config,
        wanted: SandboxRef,
    ) -> SandboxPending | SandboxGone | None:
        """See `hold`."""
        if pod is not None and _owner(pod) != self._task.uid:
            return None  # which is told in a moment
        assert config.sandbox.claim is not None
        try:
            return await hold(
                self._home.pods, generation, pod, state, config.sandbox.claim,
                used=bool(wanted.ledger),
            )  # fmt: skip
        except Refused as refused:
            return _refused(refused)

    async def _completed(
        self,
        generation: Generation,
        pod_uid: str,
        config: Config,
        state: PodState,
        *,
        used: bool,
    ) -> SandboxPending:
        """A pod that is not ready, with all that it needs."""
        if self._complete != pod_uid and await self._home.pods.is_complete(generation, pod_uid):
            self._complete = pod_uid
        if self._complete != pod_uid:
            unmade = await self._make(generation, pod_uid, config, used=used)
            if not self._complete:
                return unmade
        return _pending(state)

    async def changed(self, wanted: SandboxRef) -> None:
        await asyncio.sleep(LOOK_AGAIN_S)

    async def remove(self) -> None:
        self._known = None
        await self._home.pods.remove(self._task)

    def _generation(self, wanted: SandboxRef) -> Generation:
        task = self._task
        return Generation(task.namespace, task.name, task.uid, wanted.generation)

    async def _make(
        self, generation: Generation, pod_uid: str | None, config: Config, *, used: bool
    ) -> SandboxPending:
        """Make the pod, if there is none, and what it needs.

        Start files are for a new workspace only; they may be gone by the time of the next pod.
        """
        on_claim = used and config.sandbox.claim is not None
        pods = self._home.pods
        try:
            api, namespace = self._home.api, generation.namespace
            files = await read_files(api, namespace, () if on_claim else config.files)
            egress = await read_egress(api, namespace, config.sandbox.egress)
            if pod_uid is not None:
                made = pod_uid if await pods.complete(generation, pod_uid, files, egress) else ""
            elif await pods.leftover(generation):
                made = ""
            else:
                made = await pods.create(generation, config.sandbox, files, config.git, egress)
        except FileMissing as missing:
            return SandboxPending(Reason.CONFIG_MAP_NOT_FOUND, str(missing), hopeless=True)
        except ServiceMissing as missing:
            return SandboxPending(Reason.SERVICE_NOT_FOUND, str(missing), hopeless=True)
        except Refused as refused:
            return _refused(refused)
        except ValueError as unfit:  # FilesUnfit and EgressUnfit among them
            return SandboxPending(Reason.CONFIG_INVALID, str(unfit), hopeless=True)
        self._complete = made
        return SandboxPending(
            Reason.SANDBOX_STARTING,
            f"Sandbox pod {generation.name} has been created."
            if made
            else f"Objects of an earlier pod {generation.name} are still being removed.",
        )

    async def _greet(self, generation: Generation, pod: dict[str, Any], wanted: SandboxRef) -> Seen:
        """Ask a ready pod which ledger it has, and raise our epoch there."""
        client = await self._client_of(generation, pod)
        if client is None:
            return _hopeless(
                f"Secret {generation.name} of the sandbox is gone or damaged, so that nobody can talk to "
                f"pod {generation.name} any more; delete the pod, and a new one is made."
            )
        info = await client.info()
        if info.task_uid != self._task.uid:
            return _hopeless(f"Pod {generation.name} serves task {info.task_uid}, not this one.")
        if wanted.ledger and info.ledger != wanted.ledger:
            return SandboxGone(
                f"Pod {generation.name} has another ledger ({info.ledger}) than the one that was "
                f"used ({wanted.ledger}): it was replaced."
            )
        client.ledger = info.ledger
        await step(Point.PREPARE_EPOCH, client.raise_epoch, SandboxAway)
        return SandboxReady(SandboxRef(wanted.generation, info.ledger, generation.name))

    async def _client_of(self, generation: Generation, pod: dict[str, Any]) -> SandboxClient | None:
        address = str(pod["status"].get("podIP") or "")
        mark = f"{pod['metadata'].get('uid')} {address}"
        if self._known is not None and self._known[0] == mark:
            return self._known[1]
        identity = await self._home.pods.identity(generation)
        if identity is None:
            return None
        try:
            client = SandboxClient(
                self._home.session,
                pod=generation.name,
                address=address,
                port=self._home.port,
                identity=identity,
                server_name=server_name(self._task.uid, generation.number),
                epoch=self._epoch,
            )
        except (ssl.SSLError, ValueError):  # somebody wrote into the Secret
            return None
        self._known = mark, client
        return client

    # --- calls ---

    @property
    def _client(self) -> SandboxClient:
        if self._known is None or not self._known[1].ledger:
            raise SandboxAway(f"the sandbox of task {self._task} is not known to be up")
        return self._known[1]

    async def run(self, order: CallOrder) -> Receipt:
        client, wait = self._client, self._home.wait_s
        found: Found | None = await client.submit(order, self._hard_timeout_s, wait)
        while found is not None and not found.finished:
            await self._expect_runner(client, order.key)
            found = await client.poll(order.key, wait)
        if found is None:
            raise SandboxRefused("bad_answer", f"call {order.key} was reserved and is now absent")
        return found.receipt

    async def _expect_runner(self, client: SandboxClient, key: str) -> None:
        """A call whose runner is gone ends when the next one comes: for that, look at the pod."""
        if not (await client.info()).shell:
            raise SandboxAway(
                f"call {key} waits: the shell container of sandbox {client.pod} is not connected, "
                "it may be restarting"
            )

    async def network(self) -> NetworkVerdict:
        return await self._client.network() or NETWORK_UNTOLD

    async def interrupt(self, order: CallOrder) -> Receipt | None:
        try:
            async with asyncio.timeout(self._home.interrupt_s):
                found = await self._client.cancel(order.key)
        except TimeoutError:
            return _unknown(order)
        if found is None:
            return None
        return found.receipt if found.finished else _unknown(order)

    async def digest(self, path: str) -> str:
        return await self._client.digest(path)

    async def patch(self) -> Patch:
        try:
            diff = await self._client.diff()
        except SandboxRefused as refused:
            if refused.code != "too_large":
                raise
            raise SandboxRefused(refused.code, f"{refused}. {self._remains()}") from refused
        return await patches.stored(self._home.api, self._task, diff)

    def _remains(self) -> str:
        """What becomes of work that is too large for a patch."""
        if self._on_claim:
            claim = names.workspace_claim_name(self._task.name, self._task.uid)
            return f"It stays on PersistentVolumeClaim {claim} until the task is deleted."
        return (
            "It is lost with the sandbox: put what is no result into .gitignore, or give the"
            " SandboxClass a workspace.volumeClaim, on which all of it stays."
        )


def _owner(pod: dict[str, Any]) -> str:
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get(names.LABEL_TASK_UID, ""))


def _never_ran(pod: dict[str, Any]) -> bool:
    status = pod.get("status") or {}
    return str(status.get("phase", "Pending")) == "Pending"


def _over(state: PodState) -> bool:
    return state.stage in (Stage.GONE, Stage.FAILED)


def _refused(refused: Refused) -> SandboxPending:
    if refused.quota:
        return SandboxPending(Reason.SANDBOX_UNSCHEDULABLE, str(refused))
    return _hopeless(str(refused))


def _pending(state: PodState) -> SandboxPending:
    return SandboxPending(state.reason, state.message, hopeless=state.stage is Stage.BROKEN)


def _hopeless(message: str) -> SandboxPending:
    return SandboxPending(Reason.SANDBOX_FAILED, message, hopeless=True)


def _unknown(order: CallOrder) -> Receipt:
    text = "[outcome unknown] The command was told to stop and did not end in time."
    return Receipt(order.key, Outcome.UNKNOWN, text)
