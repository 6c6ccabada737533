"""A task and how it ended, read from the cluster and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.api import names
from ratchet.cli.cluster import Cluster, get, refused
from ratchet.cli.failures import BROKEN, UNABLE, Failed
from ratchet.core.config import Config
from ratchet.core.records import End, Patch, Start
from ratchet.edges import kube, patches, taskstatus, wire
from ratchet.edges.answers import FAILURES
from ratchet.ports import JournalAway, TaskRef


@dataclass(frozen=True, slots=True)
class Work:
    """A task, as its status is now, and its End record; None while it goes on."""

    task: TaskRef
    status: Mapping[str, Any]
    end: End | None


async def read_work(cluster: Cluster, name: str) -> Work:
    """Raises Failed: there is no such task, it may not be read, or its record is none."""
    what = f"AgentTask {name} in namespace {cluster.namespace}"
    found = await get(cluster, kube.task(cluster.namespace, name), what)
    if found is None:
        raise Failed(f"There is no {what}: give its namespace with -n.")
    task = TaskRef(cluster.namespace, name, taskstatus.uid(found))
    status = taskstatus.status(found)
    end = await _end(cluster, task)
    if end is None and taskstatus.is_finished(found):
        text = f"{what} has ended ({status.get('reason')}) without a record of its end"
        raise Failed(f"{text}: {status.get('message') or 'it never began'}")
    return Work(task, status, end)


async def read_config(cluster: Cluster, task: TaskRef) -> Config:
    """What the task was started with. Raises Failed."""
    name = names.turn_name(task.name, task.uid, 0)
    found = await get(cluster, kube.turn(task.namespace, name), f"AgentTurn {name}")
    if found is None:
        raise Failed(f"AgentTurn {name} is gone: `ratchet verify` tells what else.", BROKEN)
    record = _record(task, found)
    assert isinstance(record, Start)  # of number 0, which its name and from_object say
    return record.config


async def read_patch(cluster: Cluster, work: Work, end: End) -> bytes:
    """The patch of a task that has ended, digest checked. Raises Failed."""
    if end.patch is None:
        raise Failed(_without(work, end))
    _check_status(work, end.patch)
    try:
        return await patches.read(cluster.api, work.task.namespace, end.patch)
    except JournalAway as away:
        raise Failed(f"The patch cannot be read: {away}.") from away
    except patches.PatchBroken as broken:
        kept = end.patch.inline or end.patch.parts
        size = f"of {end.patch.size} bytes, sha256 {end.patch.sha256}"
        text = f"The patch of task {work.task} ({size}) cannot be had: {broken}.{_claim(work)}"
        raise Failed(text, BROKEN if kept else UNABLE) from broken


def _without(work: Work, end: End) -> str:
    why = f": {end.message}" if end.message else "."
    return (
        f"Task {work.task} ended {end.outcome} ({end.reason}) and left no patch{why}{_claim(work)}"
    )


def _claim(work: Work) -> str:
    name = (work.status.get("result") or {}).get("workspaceClaim")
    return f" The workspace is on PersistentVolumeClaim {name}." if name else ""


def _check_status(work: Work, patch: Patch) -> None:
    told = (work.status.get("result") or {}).get("patchSha256")
    if told and told != patch.sha256:
        raise Failed(
            f"The status of task {work.task} names another patch (sha256 {told}) than its journal "
            f"({patch.sha256}): one of the two was edited; `ratchet verify` tells more.", BROKEN,
        )  # fmt: skip


async def _end(cluster: Cluster, task: TaskRef) -> End | None:
    selector = names.task_selector(task.uid, component=names.COMPONENT_JOURNAL)
    selector += f",{names.LABEL_TURN_KIND}=End"
    try:
        async for found in kube.pages(cluster.api, kube.turn(task.namespace), selector):
            record = _record(task, found)
            if isinstance(record, End):
                return record
    except FAILURES as failure:
        raise refused(f"The AgentTurns of task {task}", failure) from failure
    return None


def _record(task: TaskRef, found: Mapping[str, Any]) -> object:
    try:
        return wire.from_object(task, found)
    except wire.NewerJournal as error:
        raise Failed(str(error)) from error
    except wire.Unreadable as error:
        raise Failed(f"{error} {wire.ADVICE}", BROKEN) from error
