"""What the double imitates, held to a real API server: the shapes of discovery, list and watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from ratchet.edges.kube import ApiError, Kube, core

from tests.cluster import Cluster
from tests.kopf_contract.api_server import ApiServer
from tests.kopf_contract.api_shapes import Object, Resource
from tests.kopf_contract.conftest import OTHERS
from tests.kopf_contract.places import PLURAL, Double, Place, Real, credentials, watch

CONFIG_MAP = Resource("", "v1", PLURAL, "ConfigMap")


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with ApiServer([CONFIG_MAP, *OTHERS]) as server:
        yield Double(server)


@pytest.fixture
async def real(cluster: Cluster, api: Kube, namespace: str) -> Real:
    await _until_it_is_furnished(api, namespace)
    return Real(api, namespace, credentials(cluster))


async def _until_it_is_furnished(api: Kube, namespace: str) -> None:
    """Kubernetes puts a ConfigMap into each new namespace, at a busy time some seconds later."""
    async with asyncio.timeout(30):
        while True:
            with suppress(ApiError):
                await api.request("GET", core(PLURAL, namespace, "kube-root-ca.crt"))
                return
            await asyncio.sleep(0.05)


@pytest.fixture(params=["double", pytest.param("real", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest) -> Place:
    """Both servers in turn."""
    found: Place = request.getfixturevalue(request.param)
    return found


async def _get(place: Place, path: str, **query: str) -> tuple[int, Object]:
    async with place.session() as session, session.get(place.url + path, params=query) as answer:
        return answer.status, await answer.json() if answer.status == 200 else {}


async def _list(place: Place, **query: str) -> Object:
    code, found = await _get(place, core(PLURAL, place.namespace), **query)
    assert code == 200
    return found


async def _place_of(place: Place) -> str:
    version: str = (await _list(place))["metadata"]["resourceVersion"]
    return version


async def test_discovery_names_groups_versions_and_resources(place: Place) -> None:
    _, versions = await _get(place, "/api")
    assert versions["versions"] == ["v1"]
    _, groups = await _get(place, "/apis")
    crds = next(group for group in groups["groups"] if group["name"] == "apiextensions.k8s.io")
    assert crds["preferredVersion"]["version"] == "v1"
    assert [version["version"] for version in crds["versions"]] == ["v1"]
    _, served = await _get(place, "/api/v1")
    found = next(each for each in served["resources"] if each["name"] == PLURAL)
    assert (found["kind"], found["namespaced"]) == ("ConfigMap", True)
    assert {"list", "watch", "patch"} <= set(found["verbs"])
    assert "singularName" in found


async def test_what_is_not_served_is_not_found(place: Place) -> None:
    for path in ("/apis/nowhere.example.com/v1", "/apis/nowhere.example.com/v1/things"):
        code, _ = await _get(place, path)
        assert code == 404, path


async def test_a_list_has_a_version_and_items_without_their_kind(place: Place) -> None:
    await place.create("one", labels={"part": "a"})
    await place.create("two", labels={"part": "b"})
    found = await _list(place, labelSelector="part=b")
    assert (found["kind"], found["apiVersion"]) == ("ConfigMapList", "v1")
    assert int(found["metadata"]["resourceVersion"]) > 0
    (item,) = found["items"]
    assert item["metadata"]["name"] == "two"
    assert not {"kind", "apiVersion"} & item.keys()
    assert {"uid", "namespace", "resourceVersion", "creationTimestamp"} <= item["metadata"].keys()


async def _told(events: Any, number: int) -> list[Object]:
    return [await anext(events) for _ in range(number)]


async def test_a_watch_tells_what_came_after_its_version_in_order(place: Place) -> None:
    await place.create("before")
    since = await _place_of(place)
    await place.create("mend")
    await place.change("mend", labels={"part": "a"})
    async with watch(place, resourceVersion=since) as events:
        told = await _told(events, 2)
        await place.delete("mend")
        told += await _told(events, 1)
    assert [event["type"] for event in told] == ["ADDED", "MODIFIED", "DELETED"]
    assert {event["object"]["metadata"]["name"] for event in told} == {"mend"}
    assert {(event["object"]["kind"], event["object"]["apiVersion"]) for event in told} == {
        ("ConfigMap", "v1")
    }
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in told]
    assert versions == sorted(set(versions)) and versions[0] > int(since)
    async with watch(place, resourceVersion=str(versions[0])) as events:
        again = await _told(events, 2)
    assert [event["type"] for event in again] == ["MODIFIED", "DELETED"]


async def test_an_object_that_ceases_to_match_is_told_as_deleted_as_it_was(place: Place) -> None:
    since = await _place_of(place)
    async with watch(place, resourceVersion=since, labelSelector="part=a") as events:
        await place.create("mend", labels={"part": "a"})
        await place.change("mend", labels={"part": "b"})
        await place.change("mend", labels={"part": "a"})
        told = await _told(events, 3)
    assert [event["type"] for event in told] == ["ADDED", "DELETED", "ADDED"]
    assert told[1]["object"]["metadata"]["labels"] == {"part": "a"}
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in told]
    assert versions == sorted(set(versions))


async def test_a_version_that_is_forgotten_is_an_error_within_the_stream(place: Place) -> None:
    await place.create("mend")
    moment = await place.forgotten()
    async with watch(place, moment.path, resourceVersion=moment.version) as events:
        (event,) = [event async for event in events]
    assert event["type"] == "ERROR"
    error = event["object"]
    assert (error["kind"], error["code"], error["reason"]) == ("Status", 410, "Expired")
    assert error["message"].startswith("too old resource version: 1 (")


async def test_a_bookmark_has_a_kind_and_a_version_and_no_name(place: Place) -> None:
    since = await _place_of(place)
    async with watch(place, resourceVersion=since, timeoutSeconds="4") as events:
        await place.create("mend")  # or a real server has nothing newer to tell, and is silent
        (created,) = await _told(events, 1)
        await place.bookmark()
        (event,) = await _told(events, 1)
    assert [created["type"], event["type"]] == ["ADDED", "BOOKMARK"]
    assert event["object"]["kind"] == "ConfigMap"
    assert int(event["object"]["metadata"]["resourceVersion"]) >= int(since)
    assert not {"name", "uid"} & event["object"]["metadata"].keys()


async def test_a_token_that_is_not_valid_is_unauthorized(place: Place) -> None:
    headers = {"Authorization": "Bearer wrong"}
    connector = aiohttp.TCPConnector(ssl=False)
    async with (
        aiohttp.ClientSession(headers=headers, connector=connector) as session,
        session.get(place.url + "/api/v1/pods") as answer,
    ):
        assert answer.status == 401
        assert (await answer.json())["reason"] == "Unauthorized"
