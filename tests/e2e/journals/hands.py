"""What people with too many rights do to journals, and a journal for them to do it to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ratchet.api import names
from ratchet.core.records import Record, Turn
from ratchet.edges import digests, kube
from ratchet.edges.journal import KubeJournal
from ratchet.ports import TaskRef

from tests.contract.journal_homes import ClusterHome
from tests.contract.test_journal import NOW, after, end, results, turn

Object = dict[str, Any]
Change = Callable[[Object], None]


def name_of(task: TaskRef, number: int) -> str:
    return names.turn_name(task.name, task.uid, number)


def path_of(task: TaskRef, number: int, part: str = "") -> str:
    return kube.turn(task.namespace, name_of(task, number), part)


async def stored(home: ClusterHome, namespace: str) -> dict[str, Object]:
    """All AgentTurns of a namespace, by name, as they are now."""
    found = await home.api.request("GET", kube.turn(namespace))
    return {item["metadata"]["name"]: item for item in found["items"]}


async def grown(
    home: ClusterHome, task: TaskRef, turns: int = 2, ended: bool = False
) -> tuple[KubeJournal, list[Record]]:
    """A journal with record 0, complete turns, and perhaps an end that no status shows yet."""
    claimed = await home.journals.claim(task, "one", NOW)
    assert claimed is not None
    claim, journal = claimed
    assert isinstance(journal, KubeJournal)
    records = list(claim.records)
    for number in range(1, turns + 1):
        records.append(await complete(journal, task, records, number))
    if ended:
        records.append((await journal.append(after(records[-1], end(len(records)))))[0])
    return journal, records


async def complete(journal: KubeJournal, task: TaskRef, records: list[Record], number: int) -> Turn:
    """One more turn, with its results."""
    opened, _ = await journal.append(after(records[-1], turn(number)))
    assert isinstance(opened, Turn)
    done = tuple(
        type(result)(result.index, f"{task.uid}/{number}/{result.index}", result.outcome, "text")
        for result in results(task)
    )
    return await journal.record_results(opened, done)


async def delete(home: ClusterHome, task: TaskRef, number: int) -> None:
    """`kubectl delete agentturn`."""
    await home.api.request("DELETE", path_of(task, number))


async def create(home: ClusterHome, body: Object) -> None:
    """`kubectl create`, with the status that a backup tool or an administrator sets afterwards."""
    body = copy.deepcopy(body)
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        body["metadata"].pop(field, None)
    status = body.pop("status", None)
    await home.api.request("POST", kube.turn(namespace), body)
    if status:
        path = kube.turn(namespace, name, "status")
        change = {"status": status}
        await home.api.request("PATCH", path, change, content_type=kube.MERGE_PATCH)


async def exchange(home: ClusterHome, task: TaskRef, number: int, change: Change) -> None:
    """An edit in the only way that the API server lets through: deleted, and created changed."""
    body = await home.api.request("GET", path_of(task, number))
    await delete(home, task, number)
    change(body)
    await create(home, body)


async def edit(
    home: ClusterHome, task: TaskRef, number: int, patch: Object, part: str = ""
) -> None:
    """`kubectl patch` or `kubectl label`."""
    path = path_of(task, number, part)
    await home.api.request("PATCH", path, patch, content_type=kube.MERGE_PATCH)


def sign(body: Object) -> None:
    """Make the digests of a changed record fit again."""
    body["spec"]["digest"] = digests.of_spec(body["spec"])
    if "digest" in body.get("status", {}):
        body["status"]["digest"] = digests.of_results(body["spec"]["digest"], body["status"])
