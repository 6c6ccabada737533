"""Tasks that come back from a backup, or lose their status: nothing starts over on old records."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from ratchet.api import names
from ratchet.edges import kube
from ratchet.fakes.model import calls
from ratchet.ports import TaskRef

from tests.contract.journal_homes import ClusterHome
from tests.contract.test_journal import after, claimed, summary, turn
from tests.e2e.journals.hands import Object, create, exchange, grown, name_of, path_of, stored
from tests.e2e.journals.play import BASH, FINISH, Play
from tests.e2e.journals.test_taken_over import other_end, stops

pytestmark = pytest.mark.cluster


async def put_status(home: ClusterHome, task: TaskRef, status: dict[str, Any]) -> None:
    """`kubectl replace --subresource=status`."""
    body = await home.get(task)
    body["status"] = status
    await home.api.request("PUT", kube.task(task.namespace, task.name, "status"), body)


# --- the same task, its status gone or old -------------------------------------------------------


async def test_a_task_that_lost_its_status_does_not_start_over(home: ClusterHome) -> None:
    task = await home.create()
    await grown(home, task)
    await put_status(home, task, {})
    last = f"AgentTurn {name_of(task, 2)} (record 2) is there"
    await stops(home, task, last, "The status of the task knows of no owner")


async def test_a_task_that_lost_status_and_record_0_does_not_start_over(home: ClusterHome) -> None:
    task = await home.create()
    await grown(home, task)
    await put_status(home, task, {})
    await home.api.request("DELETE", path_of(task, 0))
    await stops(home, task, f"AgentTurn {name_of(task, 0)} (record 0) is missing")


async def test_a_task_whose_status_is_older_than_its_journal_does_not_go_on(
    home: ClusterHome,
) -> None:
    task = await home.create()
    await claimed(home, task)
    old = (await home.get(task))["status"]
    await claimed(home, task)
    claim, journal = await claimed(home, task)
    await journal.append(after(claim, turn(1, epoch=3)))
    await put_status(home, task, old)
    text = f"AgentTurn {name_of(task, 1)} (record 1) is of epoch 3"
    await stops(home, task, text, "the status is older than the journal")


async def test_an_end_that_the_status_lost_is_shown_again(home: ClusterHome) -> None:
    play = await Play.of(home, calls(BASH), calls(FINISH), activeDeadlineSeconds=1000)
    async with asyncio.timeout(60):
        await play.run()
    before, records = await home.get(play.task), await stored(home, play.task.namespace)
    await put_status(home, play.task, {})
    async with asyncio.timeout(60):
        await play.run()
    status = (await home.get(play.task))["status"]
    assert await stored(home, play.task.namespace) == records
    for name in ("phase", "reason", "turns", "toolCalls", "tokens", "result"):
        assert status[name] == before["status"][name], name
    assert status["owner"]["epoch"] > before["status"]["owner"]["epoch"]
    assert len(play.sandboxes.effects) == 1 and len(play.model.seen) == 2


async def test_an_end_that_somebody_edited_is_not_shown(home: ClusterHome) -> None:
    task = await home.create()
    await grown(home, task, ended=True)
    await put_status(home, task, {})
    await exchange(home, task, 3, other_end)
    await stops(home, task, f"AgentTurn {name_of(task, 3)} (record 3) was edited")


# --- another task of the same name, from a backup ------------------------------------------------


async def restored(home: ClusterHome, task: TaskRef, *, with_status: bool) -> TaskRef:
    """The task and its records as a backup tool makes them anew: the uid is another one.

    The records name the old uid everywhere. They are made without their owner here, which is
    gone: Kubernetes would delete them soon.
    """
    old, turns = await home.get(task), await stored(home, task.namespace)
    await home.delete(task)
    async with asyncio.timeout(30):
        while await stored(home, task.namespace):  # noqa: ASYNC110 - the API server sets no event
            await asyncio.sleep(0.2)
    body = {"metadata": {"name": task.name}, "spec": old["spec"]}
    body |= {"apiVersion": old["apiVersion"], "kind": old["kind"]}
    made = await home.api.request("POST", kube.ours(names.TASK_PLURAL, task.namespace), body)
    new = TaskRef(task.namespace, task.name, made["metadata"]["uid"])
    for item in turns.values():
        await create(home, orphan(item))
    if with_status:
        await put_status(home, new, old["status"])
    return new


def orphan(item: Object) -> Object:
    body = copy.deepcopy(item)
    del body["metadata"]["ownerReferences"]
    return body


async def test_a_restored_task_is_a_new_one_and_takes_no_old_record_for_its_own(
    home: ClusterHome,
) -> None:
    play = await Play.of(home, calls(BASH), calls(FINISH))
    async with asyncio.timeout(60):
        await play.run()
    old = play.task
    play.task = await restored(home, old, with_status=False)
    left = await stored(home, old.namespace)
    assert set(left) == {name_of(old, n) for n in range(4)}
    async with asyncio.timeout(60):
        await play.run()
    now = await stored(home, old.namespace)
    assert {name: now[name] for name in left} == left, "the old records are as they were"
    assert set(now) - set(left) == {name_of(play.task, n) for n in range(4)}
    assert await home.phase(play.task) == "Succeeded"


async def test_a_task_restored_with_its_status_stays_ended(home: ClusterHome) -> None:
    play = await Play.of(home, calls(BASH), calls(FINISH))
    async with asyncio.timeout(60):
        await play.run()
    play.task = await restored(home, play.task, with_status=True)
    left = await stored(home, play.task.namespace)
    assert await play.run() is None
    assert await home.phase(play.task) == "Succeeded"
    assert await stored(home, play.task.namespace) == left


async def test_a_task_restored_with_the_status_of_a_run_does_not_go_on_without_its_records(
    home: ClusterHome,
) -> None:
    task = await home.create()
    journal, _ = await grown(home, task)
    await journal.summarise(summary(turns=2))
    new = await restored(home, task, with_status=True)
    await stops(home, new, f"AgentTurn {name_of(new, 0)} (record 0) is missing")


async def test_a_record_in_the_way_of_a_new_task_is_not_adopted(home: ClusterHome) -> None:
    """Uids whose first characters are the same: names alone would not tell them apart."""
    other, task = await home.create("other"), await home.create("mine")
    await grown(home, other)
    foreign = orphan((await stored(home, other.namespace))[name_of(other, 0)])
    foreign["metadata"]["name"] = name_of(task, 0)
    foreign["metadata"]["labels"][names.LABEL_TASK_UID] = "another-uid"
    await create(home, foreign)
    await stops(home, task, f"AgentTurn {name_of(task, 0)} (record 0) is of another task")
