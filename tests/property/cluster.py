"""A pretended cluster with one task: API server, pods and model, and operators that come and go.

The operators' loop, supervisor, journal and sandbox port are the real ones, and so are the ledger
and the rules of the sandbox's server. What is pretended is what lies outside: the API server's
storage, the network, the kubelet, the tools, the model, and time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from ratchet.api import names
from ratchet.core import events as e
from ratchet.core.conditions import TERMINAL_PHASES, Phase
from ratchet.core.config import Config
from ratchet.core.records import Record, Start
from ratchet.core.state import State
from ratchet.edges import kube, taskstatus, wire
from ratchet.fakes.model import FakeModel
from ratchet.ports import TaskRef

from tests.property.apiserver import ApiServer, Object
from tests.property.network import Network, Sender, Way
from tests.property.operators import Operator, Surroundings
from tests.property.pods import Pod, Tools
from tests.unit.core.world import Effect, Seen, brief

TASK = TaskRef("work", "mend", "11111111-2222-3333-4444-555555555555")
AFTER_A_TAKEOVER = "a request arrived after a takeover"
AFTER_THE_END = "a request arrived after the end"
_ON_CLAIM = {"volumeClaim": {"size": "1Gi"}}
RELIST_S = 10.0
"""How often a watch is begun anew, with a list of what there is."""
LEADS_AGAIN_S = 1.0
"""How long nobody leads after a process has died."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the status says, as far as promises are made of it."""

    phase: Phase
    reason: str
    turns: int
    lost_requests: int


@dataclass(slots=True)
class Setting:
    """What a cluster is made of."""

    spec: dict[str, Any]
    model: FakeModel
    dice: Random
    start_s: float = 0.5
    """How long a pod takes to start."""
    tools: Tools | None = None
    network: str = ""
    """As in `plan.Plan`."""
    claim: bool = False
    """As in `plan.Plan`."""


@dataclass(slots=True)
class StoredTask:
    """The task as the API server has it."""

    api: ApiServer
    ref: TaskRef = TASK
    path: str = kube.task(TASK.namespace, TASK.name)
    folder: str = kube.turn(TASK.namespace) + "/"
    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    """By path and version: reading is slow."""

    @property
    def body(self) -> Object:
        return self.api.objects[self.path]

    @property
    def epoch(self) -> int:
        return taskstatus.epoch(self.body)

    @property
    def config(self) -> Config:
        start = self.journal[0]
        assert isinstance(start, Start)
        return start.config

    @property
    def summary(self) -> Shown | None:
        status = taskstatus.status(self.body)
        if "turns" not in status:
            return None
        return Shown(
            Phase(status["phase"]), status["reason"], status["turns"], status["lostRequests"]
        )

    @property
    def finished(self) -> bool:
        return taskstatus.status(self.body).get("phase") in TERMINAL_PHASES

    @property
    def journal(self) -> tuple[Record, ...]:
        """The records in order."""
        found = [self._record(path) for path in self.api.objects if path.startswith(self.folder)]
        return tuple(sorted(found, key=lambda record: record.number))

    def _record(self, path: str) -> Record:
        stored = self.api.objects[path]
        version = stored["metadata"]["resourceVersion"]
        if (path, version) not in self.records:
            self.records[path, version] = wire.from_object(self.ref, stored)
        return self.records[path, version]


class Cluster:
    """One task, its surroundings, and all that was seen of it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.dice = setting.dice
        self.api = ApiServer()
        self.task = StoredTask(self.api)
        self.network = Network(Random(setting.dice.random()), self.tell, self._came_late)
        self.model = setting.model
        self.tools = setting.tools or Tools(lambda _: 1.0, lambda _: None, self._began)
        self.pods: dict[str, Pod] = {}
        self.operators: list[Operator] = []
        self.effects: list[Effect] = []
        self.claims: dict[str, Pod] = {}
        """By uid of a claim: the pod that used it last."""
        self.unconfined: list[str] = []
        """Calls that began in a pod that had not said that its network policy holds, and should have."""
        self.seen: list[Seen] = []
        self.heads: list[tuple[Record, ...]] = []
        self.summaries: list[Shown] = []
        self.story: list[str] = []
        self.noted: set[str] = set()
        """What happened by the way."""
        self.held_until = 0.0
        """Until when no watch delivers."""
        self.told: list[tuple[str, str, Object]] = []
        """The newest watch events."""
        self._epoch = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._keeping: asyncio.Task[None] | None = None
        self._put_objects()
        self.api.listeners.append(self._changed)

    def _put_objects(self) -> None:
        where = TASK.namespace
        for plural, name, spec in (
            (names.ENDPOINT_PLURAL, "default", {"url": "http://model/v1", "model": "m"}),
            (names.ENDPOINT_PLURAL, "backup", {"url": "http://backup/v1", "model": "m2"}),
            (
                names.CLASS_PLURAL,
                "default",
                {
                    "image": "debian",
                    "requireEnforcedNetwork": bool(self.setting.network),
                    **({"workspace": _ON_CLAIM} if self.setting.claim else {}),
                },
            ),
        ):
            body = {"metadata": {"name": name, "namespace": where}, "spec": spec}
            self.api.put(kube.ours(plural, where, name), body)
        metadata = {"name": TASK.name, "namespace": where}
        self.api.put(self.task.path, {"metadata": metadata, "spec": self.setting.spec}, TASK.uid)

    # --- who runs the task -----------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the cluster began."""
        return asyncio.get_running_loop().time()

    @property
    def operator(self) -> Operator:
        """The newest process."""
        return self.operators[-1]

    @property
    def pod(self) -> Pod | None:
        """The newest pod, if it is alive."""
        pods = [pod for pod in self.pods.values() if pod.alive]
        return pods[-1] if pods else None

    def start(self, overlap_s: float = 0.0) -> Operator:
        """A new process leads; those before it learn of that so much later."""
        loop = asyncio.get_running_loop()
        around = Surroundings(
            self.api, self.network, self.model, self.pods, self._listen, self.dice
        )
        for older in self.operators:
            loop.call_at(max(self.now, older.frozen_until) + overlap_s, older.lose_lease)
        operator = Operator(f"op-{len(self.operators) + 1}", around)
        self.operators.append(operator)
        self.tell(operator.name, "begins")
        self._list(operator)
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        return operator

    async def _keep(self) -> None:
        """Have somebody lead, and lists made, for ever."""
        listed = self.now
        while True:
            await asyncio.sleep(LEADS_AGAIN_S)
            if self.operator.dead:
                self.start()
            if self.now - listed >= RELIST_S:
                listed = self.now
                for operator in self.operators:
                    self._list(operator)

    async def end(self) -> None:
        """Nobody does anything more."""
        if self._keeping is not None:
            self._keeping.cancel()
        for operator in self.operators:
            if operator.ending is None:
                operator.kill()
        await asyncio.gather(*(o.ending for o in self.operators if o.ending is not None))
        for pod in self.pods.values():
            pod.die()

    # --- what is seen ----------------------------------------------------------------------------

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self.now:9.3f} {who}: {what}")

    def events(self, kind: type[e.Event]) -> list[Any]:
        """All events of a kind, in order."""
        return [seen.event for seen in self.seen if isinstance(seen.event, kind)]

    def _listen(self, operator: Operator, event: e.Event, state: State) -> None:
        if not operator.dead:
            self.seen.append(Seen(self.now, operator.name, event, state))
            self.story.append(f"{self.now:9.3f} {operator.name}: {brief(event)}")

    def _began(self, pod: Pod, key: str, tool: str) -> None:
        self.tell(pod.name, f"{key} begins to run")
        if self.setting.network and not pod.confined:
            self.unconfined.append(key)
        self.effects.append(Effect(key, tool, pod.generation, pod.ledger.epoch, self.task.journal))
        for number, begun in self._waiting:
            if number == len(self.effects) and not begun.done():
                begun.set_result(None)

    def _came_late(self, sender: Sender) -> None:
        if self.task.finished:
            self.noted.add(AFTER_THE_END)
        elif sender is not self.operator:
            self.noted.add(AFTER_A_TAKEOVER)

    async def calls_begun(self, number: int) -> None:
        """Wait until so many calls have begun."""
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((number, begun))
        await begun

    def _changed(self, kind: str, path: str, found: Object) -> None:
        """Something has been written."""
        plural = path.rsplit("/", 2)[-2]
        if plural == names.TURN_PLURAL:
            self.heads.append(self.task.journal)
            return
        if plural == names.TASK_PLURAL:
            self._note_summary()
        if plural in ("pods", "secrets"):
            self._kubelet(path, found)
        if plural in ("pods", names.TASK_PLURAL):
            self.told.append((kind, path, found))
            for operator in self.operators:
                self._deliver(operator, kind, path, found)

    def _note_summary(self) -> None:
        """What the status says, but for the moment after a claim.

        A claim counts the request that it finds under way as lost; if its reply is recorded after
        all, which the claim sees only afterwards, the first summary takes that back.
        """
        shown = self.task.summary
        claimed, self._epoch = self.task.epoch != self._epoch, self.task.epoch
        if shown is not None and not claimed:
            self.summaries.append(shown)

    def _deliver(self, operator: Operator, kind: str | None, path: str, found: Object) -> None:
        """A watch event, or an entry of a list, on its way to one process."""
        if self.network.is_away(Way.WRITE):
            return
        soon = self.now + (1.0 if self.dice.random() < 0.03 else self.dice.uniform(0.005, 0.1))
        loop = asyncio.get_running_loop()
        loop.call_at(max(soon, self.held_until), operator.see, kind, path, found)

    def _list(self, operator: Operator) -> None:
        for path, found in self.api.objects.items():
            if path.rsplit("/", 2)[-2] in ("pods", names.TASK_PLURAL):
                self._deliver(operator, None, path, found)

    # --- the kubelet -----------------------------------------------------------------------------

    def _kubelet(self, path: str, found: Object) -> None:
        """A pod is started when it and its Secret are there, and ended when it is gone."""
        pod_path = path.replace("/secrets/", "/pods/")
        pod, secret = (
            self.api.objects.get(pod_path.replace("/pods/", f"/{kind}/"))
            for kind in ("pods", "secrets")
        )
        if pod is None:
            dying = self.pods.get(found["metadata"]["uid"])
            if dying is not None:
                dying.die()
        elif secret is not None and pod["metadata"]["uid"] not in self.pods:
            uid = pod["metadata"]["uid"]
            loop = asyncio.get_running_loop()
            loop.call_later(self.setting.start_s, self._start_pod, pod_path, uid)

    def _start_pod(self, path: str, uid: str) -> None:
        found = self.api.objects.get(path)
        if found is None or found["metadata"]["uid"] != uid or uid in self.pods:
            return
        generation = int(found["metadata"]["labels"][names.LABEL_GENERATION])
        name = found["metadata"]["name"]
        files = {file["path"]: file["content"] for file in self.setting.spec.get("files", ())}
        pod = Pod(name, path, uid, TASK.uid, generation, self.tools, files)
        pod.network = self.setting.network or pod.network
        self._mount(pod, found)
        self.pods[uid] = pod
        pod.start_runner()
        asyncio.get_running_loop().call_later(0.05, self.dial, pod)

    def _mount(self, pod: Pod, found: Object) -> None:
        """On a claim the pod finds the ledger and the files of the one before it."""
        for volume in found["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                name = volume["persistentVolumeClaim"]["claimName"]
                claim = self.api.objects[kube.core("persistentvolumeclaims", TASK.namespace, name)]
                before = self.claims.get(claim["metadata"]["uid"])
                if before is not None:
                    assert not before.alive, "two pods on one claim"
                    pod.take_over(before.ledger, before.files)
                self.claims[claim["metadata"]["uid"]] = pod

    def dial(self, pod: Pod) -> None:
        """The pod's runner dials its server; then the pod is ready."""
        pod.dial()
        self.show(pod)

    def show(self, pod: Pod) -> None:
        """The kubelet writes what it sees of a pod."""
        status = {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": str(pod.ready)}],
        }
        if pod.alive and pod.path in self.api.objects:
            self.api.change(pod.path, partial(_set_status, status))


def _set_status(status: Object, found: Object) -> None:
    found["status"] = status
