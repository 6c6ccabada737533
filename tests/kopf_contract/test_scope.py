"""Which objects kopf asks for: resources that are served, namespaces, and labels."""

from __future__ import annotations

from typing import Any

import kopf
import pytest
from ratchet.api import names

from tests.kopf_contract.api_server import ApiServer
from tests.kopf_contract.conftest import OTHERS, POD, SANDBOX, TASK, TASKS, Scene
from tests.kopf_contract.noting import Noting
from tests.kopf_contract.operators import Ears, kinds

OF_MEND = [{"kind": names.TASK_KIND, "name": "mend", "uid": "u-1"}]


def _selectors(server: ApiServer, plural: str) -> set[str | None]:
    asked = [asked for asked in server.asked if asked.plural == plural]
    return {asked.query.get("labelSelector") for asked in asked}


async def test_pods_that_are_no_sandboxes_are_not_sent_to_our_operator(scene: Scene) -> None:
    """`main.kopf_settings`: the server picks by label, or each pod of the cluster would come."""
    scene.server.create("pods", "web", metadata={"ownerReferences": OF_MEND})
    scene.create_pod("listed", ownerReferences=OF_MEND)
    noting = Noting(scene.server.bell)
    async with scene.operator(register=noting.register):
        await scene.watching("pods")
        scene.create_pod("watched", ownerReferences=OF_MEND)
        scene.server.create("pods", "db", metadata={"ownerReferences": OF_MEND})
        scene.server.create(TASKS, "mend")
        await scene.server.bell.until(lambda: len(noting.pods) == 2 and noting.tasks)
    assert _selectors(scene.server, "pods") == {"app.kubernetes.io/component=sandbox"}
    assert _selectors(scene.server, TASKS) == {None}


async def test_labels_of_a_handler_are_no_selector_of_its_watch(scene: Scene) -> None:
    """`main.kopf_settings` names the label too: kopf sends none of a handler to the server."""

    def sandboxes(registry: kopf.OperatorRegistry) -> None:
        @kopf.on.event("v1", "pods", labels=SANDBOX, registry=registry)
        async def pod_event(event: Any, body: Any, **_: Any) -> None:
            scene.ears.note(scene.ears.pods, event, body)

    async with scene.operator(register=sandboxes, settings=kopf.OperatorSettings()):
        await scene.watching("pods")
        scene.server.create("pods", "web")
        scene.create_pod("sandbox")
        await scene.ears.heard("sandbox")
    assert kinds(scene.ears.pods) == [("ADDED", "sandbox")]
    assert _selectors(scene.server, "pods") == {None}


async def test_a_pod_that_loses_its_label_is_told_as_deleted(scene: Scene) -> None:
    """`handlers.pod_seen`: the server's selector makes that of it, with the pod as it was."""
    scene.create_pod("sandbox")
    async with scene.operator():
        await scene.watching("pods")
        scene.server.change("pods", "sandbox", metadata={"labels": {}})
        await scene.ears.heard("sandbox", "DELETED")
    told = scene.ears.pods[-1].body["metadata"]
    assert told["labels"] == SANDBOX and "deletionTimestamp" not in told


async def test_each_namespace_has_its_watch_and_the_cluster_none(scene: Scene) -> None:
    """`settings.watch_namespaces`: rights in the namespaces themselves are enough."""
    for namespace in ("one", "two", "three"):
        scene.server.create(TASKS, f"in-{namespace}", namespace=namespace)
    async with scene.operator(namespaces=("one", "two")):
        await scene.watching(times=2)
        await scene.watching("pods", times=2)
        scene.server.change(TASKS, "in-three", namespace="three", spec={"cancel": True})
        for namespace in ("one", "two"):
            name = f"in-{namespace}"
            scene.server.change(TASKS, name, namespace=namespace, spec={"cancel": True})
            await scene.ears.heard(name, "MODIFIED")
    asked = [asked for asked in scene.server.asked if asked.verb != "discovery"]
    assert {asked.plural for asked in asked} == {TASKS, "pods"}
    assert {asked.namespace for asked in asked} == {"one", "two"}
    assert len(asked) == 2 * 2 * 2
    assert "in-three" not in {told.name for told in scene.ears.tasks}


async def test_without_namespaces_the_whole_cluster_has_one_watch(scene: Scene) -> None:
    """`settings.watch_namespaces` empty: all namespaces, also those that come later."""
    async with scene.operator():
        await scene.watching()
        scene.server.create(TASKS, "mend", namespace="new")
        await scene.ears.heard("mend", "ADDED")
    asked = [asked for asked in scene.server.asked if asked.plural == TASKS]
    assert [asked.namespace for asked in asked] == [None, None]
    assert scene.server.count("list", "namespaces") == 0


async def test_a_pattern_of_namespaces_is_watched_nowhere(scene: Scene) -> None:
    """`settings.watch_namespaces` must refuse patterns: kopf says nothing and passes them over."""
    scene.server.create(TASKS, "in-one", namespace="one")
    async with scene.operator(namespaces=("on*", "two")):
        await scene.watching()
        scene.server.create(TASKS, "in-two", namespace="two")
        await scene.ears.heard("in-two")
    asked = {asked.namespace for asked in scene.server.asked if asked.verb != "discovery"}
    assert asked == {"two"}
    assert kinds(scene.ears.tasks) == [("ADDED", "in-two")]


@pytest.mark.parametrize("later", [False, True])
async def test_a_resource_that_is_not_served_at_the_start_is_never_watched(later: bool) -> None:
    """`main.operate` must see to it that the CRDs are there: kopf warns once, and goes on."""
    async with ApiServer([POD, *OTHERS]) as server:
        scene = Scene(server, Ears(server.bell))
        async with scene.operator() as operator:
            await scene.watching("pods")
            if later:
                server.resources.append(TASK)
                server.create(TASKS, "mend")
            scene.create_pod("sandbox")
            await scene.ears.heard("sandbox")
            server.end_watches()
            await server.bell.until(lambda: server.count("watch", "pods") == 2)
            assert not operator.ended.done()
        assert server.count("list", TASKS) == 0
