"""The journal on a real API server: what only there can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ratchet.api import names
from ratchet.core.conditions import Phase
from ratchet.core.facts import Asking
from ratchet.core.records import Record, Reply, Turn, Verdict, with_results
from ratchet.edges import digests, kube, taskstatus, wire
from ratchet.edges.claim import KubeJournals
from ratchet.edges.kube import ApiError, ApiUnreachable, Kube
from ratchet.edges.lease import LeaseLock
from ratchet.ports import JournalAway, JournalRefused, OwnershipLost, TaskRef

from tests.contract.journal_homes import ClusterHome
from tests.contract.test_journal import (
    HASH,
    NOW,
    after,
    claimed,
    end,
    opened,
    rerun,
    results,
    summary,
    turn,
)
from tests.e2e.journals.hands import path_of

pytestmark = pytest.mark.cluster


async def stored_turn(home: ClusterHome, task: TaskRef, number: int) -> dict[str, Any]:
    return await home.api.request("GET", path_of(task, number))


# --- beside people -------------------------------------------------------------------------------


async def test_edits_of_labels_and_annotations_disturb_no_status_write(home: ClusterHome) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)

    async def edit() -> None:
        for n in range(20):
            await home.patch(
                task, {"metadata": {"labels": {"n": str(n)}, "annotations": {"n": "x"}}}
            )

    async def write() -> None:
        for n in range(20):
            await journal.summarise(summary(turns=n))

    await asyncio.gather(edit(), write())
    found = await home.get(task)
    assert found["metadata"]["labels"] == {"n": "19"}
    assert found["status"]["turns"] == 19


async def test_a_claim_gets_through_beside_edits(home: ClusterHome) -> None:
    task = await home.create()

    async def edit() -> None:
        for n in range(5):
            await home.patch(task, {"metadata": {"labels": {"n": str(n)}}})

    (claim, _), _ = await asyncio.gather(claimed(home, task), edit())
    assert claim.epoch == 1


async def test_one_write_is_enough_to_be_of_the_spec_as_it_is_after_an_edit(
    home: ClusterHome,
) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    await home.cancel(task)
    await journal.summarise(summary(turns=1))
    found = await home.get(task)
    assert found["metadata"]["generation"] == 2
    assert found["status"]["observedGeneration"] == 2
    assert {c["observedGeneration"] for c in found["status"]["conditions"]} == {2}


# --- write-once ----------------------------------------------------------------------------------


async def test_nobody_changes_what_is_recorded(home: ClusterHome) -> None:
    task = await home.create()
    _, journal, opening = await opened(home, task)
    rerunning = await journal.record_rerun(opening, rerun(task))
    once = (await stored_turn(home, task, 1))["status"]["reruns"]
    await journal.record_results(rerunning, results(task))
    merge = kube.MERGE_PATCH
    for part, patch in (
        ("", {"spec": {"epoch": 7}}),
        ("", {"spec": {"reply": {"text": "I never said that."}}}),
        ("status", {"status": {"results": None}}),
        ("status", {"status": {"results": []}}),
        ("status", {"status": None}),
        ("status", {"status": {"digest": HASH}}),
        ("status", {"status": {"reruns": [{**once[0], "reason": "Another."}]}}),
    ):
        with pytest.raises(ApiError, match="immutable") as refusal:
            await home.api.request("PATCH", path_of(task, 1, part), patch, content_type=merge)
        assert refusal.value.status == 422


async def test_a_record_goes_with_its_task(home: ClusterHome) -> None:
    task = await home.create()
    await opened(home, task)
    owner = (await stored_turn(home, task, 1))["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"]) == (task.uid, True)
    await home.delete(task)
    async with asyncio.timeout(30):
        while await journal_of(home, task):  # noqa: ASYNC110 - the API server sets no event
            await asyncio.sleep(0.2)


async def journal_of(home: ClusterHome, task: TaskRef) -> list[dict[str, Any]]:
    selector = names.task_selector(task.uid, component=names.COMPONENT_JOURNAL)
    return [item async for item in kube.pages(home.api, kube.turn(task.namespace), selector)]


async def test_record_0_is_covered_by_its_digest_as_it_is_stored(home: ClusterHome) -> None:
    task = await home.create(goal="é🙂\u2028 \\u0041 <&>")
    claim, _ = await claimed(home, task)
    stored = await stored_turn(home, task, 0)
    assert claim.records[0] == wire.from_object(task, stored)
    assert getattr(claim.records[0], "hash", "") == digests.of_spec(stored["spec"])


async def test_a_later_edit_of_the_endpoint_does_not_change_a_claimed_task(
    home: ClusterHome,
) -> None:
    task = await home.create()
    first, _ = await claimed(home, task)
    endpoint = kube.ours(names.ENDPOINT_PLURAL, home.namespace, "default")
    edit = {"spec": {"model": "another"}}
    await home.api.request("PATCH", endpoint, edit, content_type=kube.MERGE_PATCH)
    await home.api.request("DELETE", kube.ours(names.CLASS_PLURAL, home.namespace, "default"))
    second, _ = await claimed(home, task)
    assert second.records == first.records


async def test_a_long_journal_is_read_whole(home: ClusterHome) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    words = Reply(Verdict.TEXT, text="I think.")
    whole: list[Record] = [claim.records[0]]
    for number in range(1, 61):
        stored, _ = await journal.append(after(whole[-1], turn(number, reply=words)))
        whole.append(stored)
    claim, _ = await claimed(home, task)
    assert list(claim.records) == whole


async def test_large_records_are_taken(home: ClusterHome) -> None:
    task = await home.create(goal="g" * 65_536, context="é" * 60_000)
    _, journal, big = await opened(home, task, "\u0001" * 48_000)
    long = results(task, "é" * 80_000)
    done = await journal.record_results(big, long)
    assert done == with_results(big, long), "what is stored is what the core says is stored"
    assert done.results is not None and done.results[0].truncated


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_the_largest_task_there_can_be_is_recorded(home: ClusterHome) -> None:
    worst = "\u0001"  # six characters as JSON, and seven as JSON in JSON
    files = [{"path": "a", "content": worst * (200 * 1024 - 2 * 65_536)}]
    task = await home.create(goal=worst * 65_536, context=worst * 65_536, files=files)
    claim, _ = await claimed(home, task)
    assert (await claimed(home, task))[0].records == claim.records


@pytest.mark.parametrize(("status", "phase"), [(413, "Failed"), (422, "Waiting")])
async def test_a_task_whose_first_record_is_refused_says_so(
    home: ClusterHome, status: int, phase: str
) -> None:
    task = await home.create()
    refusing = KubeJournals(Refusing(home.api, status))
    assert await refusing.claim(task, "one", NOW) is None
    found = (await home.get(task))["status"]
    assert (found["phase"], found["reason"]) == (phase, "ConfigInvalid")
    assert "not like this" in found["message"]


class Refusing:
    """An API server that takes no new records."""

    def __init__(self, api: Kube, status: int) -> None:
        self.api = api
        self.status = status

    async def request(self, *args: Any, **more: Any) -> dict[str, Any]:
        if args[0] == "POST":
            raise ApiError(self.status, "Invalid", "not like this")
        return await self.api.request(*args, **more)


# --- records that somebody else made -------------------------------------------------------------


async def test_a_record_of_an_owner_before_is_adopted(home: ClusterHome) -> None:
    task = await home.create()
    claim, stale = await claimed(home, task)
    _, owner = await claimed(home, task)
    first = after(claim, turn(1, "first"))
    assert await stale.append(first) == (first, True)
    stored, ours = await owner.append(after(claim, turn(1, "second", epoch=2)))
    assert (stored, ours) == (first, False)
    assert isinstance(stored, Turn)
    done = await owner.record_results(stored, results(task))
    assert done.results == results(task)


async def test_a_stale_owner_that_finds_a_record_it_cannot_read_is_told_to_stop(
    home: ClusterHome,
) -> None:
    task = await home.create()
    claim, stale = await claimed(home, task)
    await claimed(home, task)
    newer = wire.to_object(task, after(claim, turn(1, epoch=2)))
    newer["spec"]["journalVersion"] = 99
    await home.api.request("POST", kube.turn(task.namespace), newer)
    with pytest.raises(OwnershipLost):
        await stale.append(turn())


async def test_a_record_that_does_not_fit_the_schema_is_refused(home: ClusterHome) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    with pytest.raises(JournalRefused, match="requestDigest"):
        await journal.append(turn(1, request_digest="no digest"))


# --- tasks that cannot begin ---------------------------------------------------------------------

MISSING: dict[str, dict[str, Any]] = {
    "ProfileNotFound": {"profileRef": {"name": "p"}},
    "EndpointNotFound": {"model": {"endpointRef": {"name": "e"}}},
    "ClassNotFound": {"sandbox": {"classRef": {"name": "c"}}},
    "ConfigMapNotFound": {"files": [{"path": "a", "configMapKeyRef": {"name": "m", "key": "k"}}]},
}


@pytest.mark.parametrize("reason", MISSING)
async def test_what_is_missing_is_named_and_waited_for(home: ClusterHome, reason: str) -> None:
    task = await home.create(**MISSING[reason])
    assert await home.journals.claim(task, "one", NOW) is None
    found = await home.get(task)
    status = found["status"]
    assert (status["phase"], status["reason"]) == ("Waiting", reason)
    assert "does not exist" in status["message"] and "create it" in status["message"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Ready": "False",
        "Reconciling": "True",
    }
    assert taskstatus.epoch(found) == 0
    assert await home.journals.claim(task, "one", NOW) is None
    assert (await home.get(task))["metadata"]["resourceVersion"] == (
        found["metadata"]["resourceVersion"]
    )


async def test_a_task_begins_once_what_was_missing_is_there(home: ClusterHome) -> None:
    task = await home.create(**MISSING["ConfigMapNotFound"])
    assert await home.journals.claim(task, "one", NOW) is None
    maps = kube.core("configmaps", home.namespace)
    await home.api.request("POST", maps, {"metadata": {"name": "m"}, "data": {"other": "x"}})
    assert await home.journals.claim(task, "one", NOW) is None
    assert "has no key k" in (await home.get(task))["status"]["message"]
    more = {"binaryData": {"k": "AAEC"}}
    await home.api.request("PATCH", f"{maps}/m", more, content_type=kube.MERGE_PATCH)
    _, journal = await claimed(home, task)
    await journal.summarise(summary())
    assert await home.phase(task) == "Running"


async def test_a_secret_of_the_endpoint_is_looked_for(home: ClusterHome) -> None:
    spec = {
        "url": "http://m/v1",
        "model": "m",
        "apiKeySecretRef": {"name": "key", "key": "token"},
    }
    await home.make(names.ENDPOINT_KIND, names.ENDPOINT_PLURAL, "locked", spec)
    task = await home.create(model={"endpointRef": {"name": "locked"}})
    assert await home.journals.claim(task, "one", NOW) is None
    assert (await home.get(task))["status"]["reason"] == "SecretNotFound"
    secret = {"metadata": {"name": "key"}, "stringData": {"token": "t"}}
    await home.api.request("POST", kube.core("secrets", home.namespace), secret)
    await claimed(home, task)


async def test_what_an_edit_of_the_endpoint_mends_is_waited_for(home: ClusterHome) -> None:
    spec = {"url": "http://m/v1", "model": "m", "contextWindow": 2048}
    await home.make(names.ENDPOINT_KIND, names.ENDPOINT_PLURAL, "small", spec)
    choice = {"endpointRef": {"name": "small"}, "maxOutputTokens": 4096}
    task = await home.create(model=choice)
    assert await home.journals.claim(task, "one", NOW) is None
    status = (await home.get(task))["status"]
    assert (status["phase"], status["reason"]) == ("Waiting", "ConfigInvalid")
    assert "contextWindow" in status["message"]
    path = kube.ours(names.ENDPOINT_PLURAL, home.namespace, "small")
    wider = {"spec": {"contextWindow": 65_536}}
    await home.api.request("PATCH", path, wider, content_type=kube.MERGE_PATCH)
    await claimed(home, task)


async def test_what_only_another_task_could_mend_fails_the_task(home: ClusterHome) -> None:
    both = [{"path": "src", "content": ""}, {"path": "src/a", "content": ""}]
    task = await home.create(files=both)
    assert await home.journals.claim(task, "one", NOW) is None
    status = (await home.get(task))["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "ConfigInvalid")
    assert "rename one of the two" in status["message"]
    assert status["completionTime"] == "2026-03-01T12:00:00Z"
    assert {c["type"]: c["status"] for c in status["conditions"]}["Finished"] == "True"


@pytest.fixture
async def elsewhere(home: ClusterHome) -> AsyncIterator[str]:
    """Name of a second namespace."""
    name = f"{home.namespace}-models"
    await home.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    await home.api.request("DELETE", f"/api/v1/namespaces/{name}")


async def test_an_endpoint_of_another_namespace_is_waited_for_until_it_is_shared(
    home: ClusterHome, elsewhere: str
) -> None:
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.ENDPOINT_KIND,
        "metadata": {"name": "big"},
        "spec": {"url": "http://m/v1", "model": "m"},
    }
    await home.api.request("POST", kube.ours(names.ENDPOINT_PLURAL, elsewhere), body)
    ref = {"name": "big", "namespace": elsewhere}
    task = await home.create(model={"endpointRef": ref})
    assert await home.journals.claim(task, "one", NOW) is None
    status = (await home.get(task))["status"]
    assert (status["phase"], status["reason"]) == ("Waiting", "EndpointNotFound")
    assert f"add {home.namespace} to its allowedNamespaces" in status["message"]
    shared = {"spec": {"allowedNamespaces": [home.namespace]}}
    path = kube.ours(names.ENDPOINT_PLURAL, elsewhere, "big")
    await home.api.request("PATCH", path, shared, content_type=kube.MERGE_PATCH)
    await claimed(home, task)
    assert (await home.get(task))["status"]["endpoint"] == f"{elsewhere}/big"


# --- a server that is away, and writes that arrive late -------------------------------------------


async def test_a_server_that_is_not_there_is_away(home: ClusterHome) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    away = KubeJournals(Nowhere())
    with pytest.raises(JournalAway):
        await away.claim(task, "one", NOW)
    journal._api = Nowhere()  # type: ignore[attr-defined]
    for write in (
        journal.append(turn()),
        journal.append(end()),
        journal.record_results(turn(), results(task)),
        journal.summarise(summary()),
    ):
        with pytest.raises(JournalAway):
            await write


class Nowhere:
    """An API server that never answers."""

    async def request(self, *args: Any, **more: Any) -> dict[str, Any]:
        raise ApiUnreachable("nobody is there")


class Delayed:
    """An API server to which status writes get late: each is answered by silence and kept."""

    def __init__(self, api: Kube) -> None:
        self.api = api
        self.kept: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.holding = True

    async def request(self, *args: Any, **more: Any) -> dict[str, Any]:
        if self.holding and args[0] == "PATCH":
            self.kept.append((args, more))
            raise ApiUnreachable("no answer within 10 s")
        return await self.api.request(*args, **more)


async def test_a_status_write_that_arrives_late_takes_back_no_end(home: ClusterHome) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    await journal.summarise(summary(turns=1))
    slow = Delayed(home.api)
    journal._api = slow  # type: ignore[attr-defined]
    with pytest.raises(JournalAway):
        await journal.mark_asking(Asking(2, 1, HASH), summary(turns=1))
    slow.holding = False
    await journal.summarise(summary(Phase.FAILED, turns=1))
    for args, more in slow.kept:
        with pytest.raises(ApiError):
            await home.api.request(*args, **more)
    assert await home.phase(task) == "Failed"


async def test_a_task_in_a_namespace_that_is_being_deleted_is_let_go(home: ClusterHome) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    await home.patch(task, {"metadata": {"finalizers": ["test.ratchet.run/hold"]}})
    await home.delete(task)
    assert await home.journals.claim(task, "two", NOW) is None
    await home.patch(task, {"metadata": {"finalizers": None}})
    with pytest.raises(OwnershipLost):
        await journal.summarise(summary(turns=1))


# --- the Lease -----------------------------------------------------------------------------------


async def test_the_lease_goes_from_one_to_the_next(home: ClusterHome) -> None:
    first, second = (LeaseLock(home.api, home.namespace, "operator", who) for who in "ab")
    await first.acquire()
    assert await first.attempt()
    assert not await second.attempt()
    loop = asyncio.get_running_loop()
    released = loop.time()
    await first.release()
    await second.acquire()
    assert loop.time() - released < 3.0
    assert second.held() and not await first.attempt()
    lease = await home.api.request("GET", kube.lease(home.namespace, "operator"))
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("b", 1)


async def test_of_many_that_reach_for_the_lease_at_once_one_gets_it(home: ClusterHome) -> None:
    locks = [LeaseLock(home.api, home.namespace, "operator", f"p{n}") for n in range(8)]
    got = await asyncio.gather(*(lock.attempt() for lock in locks))
    assert sum(got) == 1
    assert [lock.held() for lock in locks] == got
