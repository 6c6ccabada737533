"""What kopf tells: watch events of tasks, model endpoints and sandbox pods, and nothing else.

Only `on.event` handlers: kopf is the trigger and never the journal. No
finalizers, no annotations, no daemons, so that an uninstalled operator leaves
objects that can be deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import kopf

from ratchet.api import names
from ratchet.core.conditions import TERMINAL_PHASES
from ratchet.ports import TaskRef
from ratchet.shell.freshness import Freshness
from ratchet.shell.supervisor import PodSeen, Supervisor, TaskSeen

WATCH_TASKS = "watcher for "
"""How the names of kopf's tasks that watch begin."""
WATCHES_END_WITHIN_S = 3.0
"""kopf itself gives the handlers of a watch 2 s to end."""


class EndpointsSeen(Protocol):
    """Who is told of model endpoints."""

    def seen(self, kind: str | None, body: Mapping[str, Any]) -> None:
        """A watch event. `kind` is ADDED, MODIFIED, DELETED, or None when listed."""


def register(
    registry: kopf.OperatorRegistry,
    supervisor: Supervisor,
    freshness: Freshness,
    endpoints: EndpointsSeen | None = None,
) -> None:
    """Hang the handlers into a registry; without `endpoints`, these are not watched."""

    @kopf.on.event(names.GROUP, names.VERSION, names.TASK_PLURAL, registry=registry)
    async def task_event(event: Any, body: Any, **_: Any) -> None:
        freshness.heard()
        supervisor.task_seen(task_seen(event.get("type"), body))

    @kopf.on.event(
        "v1",
        "pods",
        labels={names.LABEL_COMPONENT: names.COMPONENT_SANDBOX},
        registry=registry,
    )
    async def pod_event(event: Any, body: Any, **_: Any) -> None:
        seen = pod_seen(event.get("type"), body)
        if seen is not None:
            supervisor.pod_seen(seen)

    if endpoints is not None:

        @kopf.on.event(names.GROUP, names.VERSION, names.ENDPOINT_PLURAL, registry=registry)
        async def endpoint_event(event: Any, body: Any, **_: Any) -> None:
            endpoints.seen(event.get("type"), dict(body))

    kopf.on.cleanup(registry=registry)(end_watches)


async def end_watches(**_: Any) -> None:
    """End the watches that kopf leaves behind when another one has failed.

    Otherwise the end of `asyncio.run` would cancel such a watch together with the task that tells it
    of a pause. kopf 1.45.2 may take that for a pause, and watches on: the process would never end.
    """
    watches = {task for task in asyncio.all_tasks() if task.get_name().startswith(WATCH_TASKS)}
    for task in watches:
        task.cancel()
    if watches:
        await asyncio.wait(watches, timeout=WATCHES_END_WITHIN_S)


def task_seen(kind: str | None, body: Any) -> TaskSeen:
    """A task's event, in our words. `kind` is ADDED, MODIFIED, DELETED, or None when listed."""
    meta, status, spec = body["metadata"], body.get("status") or {}, body.get("spec") or {}
    return TaskSeen(
        task=TaskRef(meta["namespace"], meta["name"], meta["uid"]),
        epoch=int((status.get("owner") or {}).get("epoch", 0)),
        cancel=bool(spec.get("cancel", False)),
        finished=status.get("phase") in TERMINAL_PHASES,
        gone=kind == "DELETED" or "deletionTimestamp" in meta,
        priority=int(spec.get("priority") or 0),
    )


def pod_seen(kind: str | None, body: Any) -> PodSeen | None:
    """A pod's event, in our words; None for a pod that belongs to no task."""
    meta, status = body["metadata"], body.get("status") or {}
    owner = next(
        (o for o in meta.get("ownerReferences", ()) if o.get("kind") == names.TASK_KIND), None
    )
    if owner is None:
        return None
    ready = any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())
    )
    return PodSeen(
        task=TaskRef(meta["namespace"], owner["name"], owner["uid"]),
        ready=ready,
        gone=kind == "DELETED" or "deletionTimestamp" in meta,
        pod=meta["uid"],
    )
