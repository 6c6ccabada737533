"""A task says whether its sandbox's network policy holds, and waits for that where it is required."""

from __future__ import annotations

from typing import Any

import pytest
from sglang_fake import FakeSGLang

from tests.cluster import Cluster
from tests.e2e.network_verdict.conftest import sandbox_class, verdict
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene
from tests.e2e.tasks.test_reliability import FINISH, bash, script

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LAX: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "lax"},
    "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
}
WORK = (bash("sleep 8"), FINISH)
"""Trying takes up to 5 s; a task that is over before says nothing of it."""


def opening(api_server: str) -> list[dict[str, Any]]:
    """Egress rules that open just the API server."""
    address, _, port = api_server.rpartition(":")
    return [{"cidr": f"{address}/32", "ports": [{"port": int(port)}]}]


async def run(scene: Scene, name: str, *answers: Any, **spec: Any) -> dict[str, Any]:
    """A task of a class with these fields, when it has ended."""
    async with FakeSGLang(script(*answers)) as fake:
        await scene.defaults(fake.base_url)
        await sandbox_class(scene, **spec)
        await scene.start(name)
        return await scene.ended(name, 180)


# --- where nothing enforces policies -------------------------------------------------------------


async def test_a_policy_that_nothing_enforces_is_said_to_be_ignored(
    no_enforcer: Cluster, scene: Scene, operator: OperatorProcess, api_server: str
) -> None:
    task = await run(scene, "tells", *WORK)
    assert task["status"]["phase"] == "Succeeded"
    status, reason, message = verdict(task)
    assert (status, reason) == ("False", "PolicyIgnored")
    assert f"{api_server} answered" in message


async def test_a_task_that_requires_a_policy_that_nothing_enforces_ends_before_a_call_runs(
    no_enforcer: Cluster, scene: Scene, operator: OperatorProcess, api_server: str
) -> None:
    task = await run(scene, "requires", *WORK, requireEnforcedNetwork=True)
    assert (task["status"]["phase"], task["status"]["reason"]) == ("Failed", "NetworkNotEnforced")
    assert f"{api_server} answered" in task["status"]["message"]
    assert verdict(task)[0] == "False"
    outcomes = {
        result["outcome"]
        for record in await scene.turns(task)
        for result in record.get("status", {}).get("results") or ()
    }
    assert outcomes <= {"Cancelled"}, "its call was never begun"


# --- where policies are enforced -----------------------------------------------------------------


async def test_a_policy_that_holds_is_said_to_hold(
    enforcer: Cluster, scene: Scene, operator: OperatorProcess, api_server: str
) -> None:
    task = await run(scene, "tells", *WORK)
    status, reason, message = verdict(task)
    assert (status, reason) == ("True", "PolicyEnforced")
    assert f"{api_server} did not answer" in message


async def test_a_task_that_requires_it_runs_its_calls_where_it_holds(
    enforcer: Cluster, scene: Scene, operator: OperatorProcess
) -> None:
    task = await run(scene, "requires", bash("echo hello"), FINISH, requireEnforcedNetwork=True)
    assert task["status"]["phase"] == "Succeeded"
    assert verdict(task)[0] == "True"


async def test_a_lax_policy_of_the_namespace_is_noticed(
    enforcer: Cluster, scene: Scene, operator: OperatorProcess
) -> None:
    """Policies are additive: what one of them opens is open."""
    await scene.kubectl.apply(LAX)
    task = await run(scene, "requires", *WORK, requireEnforcedNetwork=True)
    assert task["status"]["reason"] == "NetworkNotEnforced"
    assert verdict(task)[1] == "PolicyIgnored"


# --- anywhere ------------------------------------------------------------------------------------


async def test_what_a_rule_opens_tells_nothing(
    scene: Scene, operator: OperatorProcess, api_server: str
) -> None:
    task = await run(scene, "tells", *WORK, egress=opening(api_server))
    assert task["status"]["phase"] == "Succeeded"
    status, reason, message = verdict(task)
    assert (status, reason) == ("Unknown", "ProbeInconclusive")
    assert "Nothing was tried" in message


async def test_a_task_that_requires_it_does_not_run_where_that_cannot_be_known(
    scene: Scene, operator: OperatorProcess, api_server: str
) -> None:
    rules = opening(api_server)
    task = await run(scene, "requires", *WORK, egress=rules, requireEnforcedNetwork=True)
    assert task["status"]["reason"] == "NetworkNotEnforced"


async def test_a_class_with_a_service_that_is_missing_says_so_until_it_is_there(
    scene: Scene, operator: OperatorProcess
) -> None:
    rules = [{"service": {"name": "db"}, "ports": [{"port": 5432}]}]
    async with FakeSGLang(script(FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await sandbox_class(scene, egress=rules)
        await scene.start("waits")
        waiting = "--for=jsonpath={.status.reason}=ServiceNotFound"
        await scene.kubectl.run("wait", waiting, "agenttask/waits", "--timeout=60s")
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "db"},
            "spec": {"selector": {"app": "db"}, "ports": [{"port": 5432}]},
        }
        await scene.kubectl.apply(service)
        task = await scene.ended("waits", 120)
    assert task["status"]["phase"] == "Succeeded"


async def test_a_host_is_refused_with_a_sentence_where_there_is_no_cilium(
    no_enforcer: Cluster, scene: Scene, operator: OperatorProcess
) -> None:
    rules = [{"host": "example.com", "ports": [{"port": 443}]}]
    task = await run(scene, "names", FINISH, egress=rules)
    assert task["status"]["phase"] == "Failed"
    assert "Cilium" in task["status"]["message"] and "example.com" in task["status"]["message"]
