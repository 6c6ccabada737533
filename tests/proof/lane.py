"""A namespace with an operator of its own, in which tasks are run, disturbed and judged."""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ratchet.api import names
from ratchet.core.conditions import TERMINAL_PHASES
from ratchet.core.records import End, Record, Turn
from ratchet.edges import kube, wire
from ratchet.edges.kube import ApiError
from ratchet.ports import TaskRef

from tests.e2e import images
from tests.e2e.operator_process import OperatorProcess
from tests.proof.judging import Evidence, judge
from tests.proof.node import ProcessNode, RunningSandbox
from tests.proof.rows import Findings
from tests.proof.shapes import goal
from tests.proof.sights import Sights
from tests.proof.stage import Stage

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
LOG_LINES, LOG_LINE = 6, 300
"""How much of an operator's log is shown, in lines and characters of a line."""


@dataclass(slots=True)
class Lane:
    """One namespace, one operator at a time."""

    stage: Stage
    name: str
    namespace: str
    operator: OperatorProcess
    sights: Sights
    node: ProcessNode | None
    """Where sandboxes are processes; None: they are pods."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # --- tasks -----------------------------------------------------------------------------------

    async def begin(self, shape: str, count: int = 1, **spec: Any) -> list[str]:
        """Make tasks that play a shape; their names, which no other lane uses."""
        made = [f"{shape}-{self.name}-{next(self._numbers)}" for _ in range(count)]
        for name in made:
            await self.create("AgentTask", names.TASK_PLURAL, name, goal=goal(shape), **spec)
        return made

    async def create(self, kind: str, plural: str, name: str, **spec: Any) -> None:
        """Make a custom resource of ours."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        await self.stage.api.request("POST", kube.ours(plural, self.namespace), body)

    async def cancel(self, name: str) -> None:
        """Set `spec.cancel`."""
        path, body = kube.task(self.namespace, name), {"spec": {"cancel": True}}
        await self.stage.api.request("PATCH", path, body, content_type=MERGE)

    async def delete(self, *tasks: str) -> None:
        """Delete tasks, and with them their records."""
        for name in tasks:
            await self.stage.api.request("DELETE", kube.task(self.namespace, name))
            self.sights.tasks.pop(name, None)

    def seen(self, name: str) -> Object:
        """A task as last seen; empty if it was not seen yet."""
        return self.sights.tasks.get(name, {})

    def status(self, name: str) -> Object:
        """The status of a task as last seen."""
        found: Object = self.seen(name).get("status") or {}
        return found

    def epoch(self, name: str) -> int:
        """The newest owner's epoch as last seen."""
        return int((self.status(name).get("owner") or {}).get("epoch", 0))

    def uid(self, name: str) -> str:
        """The uid of a task that was seen."""
        return str(self.seen(name)["metadata"]["uid"])

    async def ended(self, tasks: Sequence[str], within_s: float) -> bool:
        """Wait until all of these tasks have ended; False if they do not in time."""
        return await self.sights.until(lambda: all(map(self.is_over, tasks)), within_s)

    def is_over(self, name: str) -> bool:
        """Whether a task was seen to have ended."""
        return self.status(name).get("phase") in TERMINAL_PHASES

    def sandbox(self, name: str) -> RunningSandbox:
        """The newest sandbox of a task. Raises KeyError while there is none."""
        assert self.node is not None, "this needs sandboxes as processes"
        return self.node.sandbox(self.uid(name))

    def another_operator(self) -> OperatorProcess:
        """A second process for the same namespace, with a name, a port and a log of its own."""
        first = self.operator
        log = first.log.with_stem(f"{first.log.stem}-other")
        return OperatorProcess(
            first.kubeconfig, self.namespace, first.images, log, pod=f"{first.pod}-other"
        )

    # --- judging ---------------------------------------------------------------------------------

    async def judged(self, tasks: Sequence[str]) -> tuple[Findings, int]:
        """What is wrong with these tasks, and how many turns they have recorded."""
        effects = self.stage.ledger.counts()
        found, turns = Findings(), 0
        for name in tasks:
            task = await self.stage.api.request("GET", kube.task(self.namespace, name))
            records = await self._records(task)
            found += self._judge(task, records, effects)
            turns += len([record for record in records if isinstance(record, Turn)])
        return found, turns

    def _judge(self, task: Object, records: Sequence[Record], effects: Counter[str]) -> Findings:
        uid, status = task["metadata"]["uid"], task.get("status") or {}
        seen = [request for request in self.stage.fake.requests if request.key == uid]
        ended = status.get("phase") in TERMINAL_PHASES
        found = judge(
            Evidence(
                task_uid=uid,
                records=records,
                effects=effects,
                ended=ended,
                refused_histories=len([r for r in seen if r.outcome == "refused"]),
            )
        )
        recorded = len([record for record in records if isinstance(record, Turn)])
        # One that the wire delivers twice is one of ours: it has one id.
        spent = len({r.rid for r in seen}) - recorded - status.get("lostRequests", 0)
        if spent > 0:
            text = f"task {uid}: {spent} requests were seen and are not counted"
            found += Findings(uncounted=spent, remarks=(text,))
        if not ended:
            found += Findings(remarks=(f"{task['metadata']['name']}: {self._told(status)}",))
        elif not any(isinstance(record, End) for record in records):
            found += Findings(remarks=(f"task {uid} ended as {status.get('reason')}",))
        return found

    def _told(self, status: Object) -> str:
        """A status in short, with the end of the operator's log, for one who looks for the cause."""
        short = {key: value for key, value in status.items() if key not in ("conditions", "tokens")}
        tail = (line[:LOG_LINE] for line in self.operator.tail(LOG_LINES).splitlines())
        return "\n    ".join((json.dumps(short), f"log: {self.operator.log}", *tail))

    async def _records(self, task: Object) -> list[Record]:
        meta = task["metadata"]
        ref = TaskRef(self.namespace, meta["name"], meta["uid"])
        selector = names.task_selector(ref.uid, component=names.COMPONENT_JOURNAL)
        pages = kube.pages(self.stage.api, kube.turn(self.namespace), selector)
        records = [wire.from_object(ref, found) async for found in pages]
        return sorted(records, key=lambda record: record.number)


@asynccontextmanager
async def lane(
    stage: Stage, name: str, *, kubeconfig: str = "", node: ProcessNode | None = None
) -> AsyncIterator[Lane]:
    """A new namespace with what tasks need, and an operator that is not started yet.

    `kubeconfig` is the operator's, and `node` another one than the stage's.
    """
    namespace = f"prove-{name}-{uuid.uuid4().hex[:6]}"
    spaces = "/api/v1/namespaces"
    await stage.api.request("POST", spaces, {"metadata": {"name": namespace}})
    operator = OperatorProcess(
        kubeconfig or stage.settings.cluster.kubeconfig,
        namespace,
        {"server": images.SERVER, "runner": images.RUNNER},
        stage.log(f"operator-{name}"),
        pod=f"operator-{name}",
    )
    operator.log.unlink(missing_ok=True)
    try:
        async with Sights(stage.upstream, namespace) as sights:
            made = Lane(stage, name, namespace, operator, sights, node or stage.node)
            await _defaults(made)
            yield made
    finally:
        if operator.process is not None:
            await operator.kill()
        try:
            await stage.api.request("DELETE", f"{spaces}/{namespace}")
        except ApiError as error:
            if error.status != 404:
                raise


async def _defaults(lane: Lane) -> None:
    await lane.create(
        "ModelEndpoint",
        "modelendpoints",
        "default",
        url=lane.stage.fake.base_url,
        model="fake",
        engine="SGLang",
    )
    if lane.node is None:
        await lane.create("SandboxClass", "sandboxclasses", "default", image=images.SHELL)
    else:
        await lane.node.adopt(lane.namespace)
