"""The charts on a real cluster: install, the example by plain kubectl, uninstall, delete.

The operator runs as its pod here, with the rights of its chart and no others.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples import demo
from tests.cluster import Cluster
from tests.e2e.kubectl import Kubectl, Refused, finished
from tools import images

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

EXAMPLE = demo.EXAMPLE
CHARTS = images.ROOT / "charts"


class Release:
    """The operator's chart, installed in a namespace of its own and looking after that one."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.kubectl = Kubectl(cluster.kubeconfig, cluster.path, namespace)
        self.name = f"ratchet-{uuid.uuid4().hex[:6]}"
        self._helm = [f"{cluster.path}/helm", "--kubeconfig", cluster.kubeconfig]
        self._helm += ["--kube-context", cluster.context, "--namespace", namespace]
        self._registry = cluster.registry or images.REGISTRY

    @property
    def namespace(self) -> str:
        return self.kubectl.namespace

    @property
    def model_url(self) -> str:
        return f"http://{self.name}-fake-sglang.{self.namespace}.svc:30000/v1"

    async def install(self, *settings: str) -> None:
        """Both charts, the model scripted for the example. `settings` are more words for helm."""
        crds = ["upgrade", "--install", "ratchet-crds", str(CHARTS / "ratchet-crds")]
        await self.helm(*crds, "--namespace", "ratchet-system", "--create-namespace",
                        "--take-ownership")  # fmt: skip
        await self.helm(
            "install",
            self.name,
            str(CHARTS / "ratchet"),
            "--wait",
            "--timeout=120s",
            f"--set=images.registry={self._registry}",
            f"--set=images.tag={images.TAG}",
            f"--set=operator.watchNamespaces={{{self.namespace}}}",
            "--set=fake.enabled=true",
            f"--set-file=fake.script={demo.SCRIPT}",
            *settings,
        )

    async def uninstall(self) -> None:
        await self.helm("uninstall", self.name, "--wait", "--ignore-not-found")

    async def helm(self, *words: str) -> str:
        """Run helm. The assertion's text is what it said."""
        process = await asyncio.create_subprocess_exec(
            *self._helm, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        return out.decode()

    async def start_example(self, **shape: Any) -> None:
        """Apply the example, the model being this release's; `shape` are more fields of the class."""
        endpoint = manifest("model-endpoint")
        endpoint["spec"]["url"] = self.model_url
        shell = manifest("sandbox-class")
        image = f"{self._registry}/ratchet-demo-shell:{images.TAG}"
        shell["spec"] |= {"image": image, **shape}
        await self.kubectl.apply(endpoint, shell, manifest("profile"), manifest("task"))


def manifest(name: str) -> dict[str, Any]:
    """One manifest of the example."""
    found: dict[str, Any] = yaml.safe_load((EXAMPLE / f"{name}.yaml").read_text())
    return found


@pytest.fixture
async def pair(cluster: Cluster, namespace: str) -> AsyncIterator[Release]:
    """Installed with two pods of the operator."""
    release = Release(cluster, namespace)
    try:
        await release.install("--set=operator.replicas=2")
        yield release
    finally:
        await release.uninstall()


@pytest.fixture
async def release(cluster: Cluster, namespace: str) -> AsyncIterator[Release]:
    release = Release(cluster, namespace)
    try:
        await release.install()
        yield release
    finally:
        await release.uninstall()


async def test_the_example_ends_with_its_patch_and_outlives_the_operator(release: Release) -> None:
    kubectl = release.kubectl
    await release.start_example()
    task = await kubectl.wait_until("agenttask", demo.TASK, finished)
    assert task["status"]["phase"] == "Succeeded", task["status"]
    await shows_what_the_readme_says(kubectl, task)

    await release.uninstall()
    assert await kubectl.names("agenttask") == [demo.TASK]
    assert len(await kubectl.names("agentturn")) == 8
    await kubectl.run("delete", "agenttask", demo.TASK, "--timeout=30s")
    await kubectl.wait_gone("agentturn")
    await kubectl.wait_gone("pod", "app.kubernetes.io/component=sandbox")


async def test_with_two_replicas_both_are_ready_and_another_ends_what_the_killed_one_began(
    pair: Release,
) -> None:
    kubectl = pair.kubectl
    operators = "app.kubernetes.io/component=operator"
    pods = set(await kubectl.names("pod", operators))
    assert len(pods) == 2
    lease = await kubectl.get("lease", "ratchet-operator")
    leader = lease["spec"]["holderIdentity"].partition("_")[0]
    assert leader in pods

    await pair.start_example()
    # Its sandbox is still being made, so nothing can have ended yet.
    await kubectl.wait_until("agenttask", demo.TASK, lambda task: "owner" in task.get("status", {}))
    await kubectl.run("delete", "pod", leader, "--grace-period=0", "--force")
    task = await kubectl.wait_until("agenttask", demo.TASK, finished)
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert task["status"]["owner"]["holder"] != leader
    await shows_what_the_readme_says(kubectl, task)


async def shows_what_the_readme_says(kubectl: Kubectl, task: dict[str, Any]) -> None:
    """Turns, answer and patch, by the commands that the demo prints and the README names."""
    selector = f"ratchet.run/task-uid={task['metadata']['uid']}"
    table = await kubectl.run(
        "get", "agentturns", "-l", selector, "--sort-by=.spec.number", "-o", demo.TURNS
    )
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["N", "KIND", "VERDICT", "TOOLS", "OUTCOMES", "SAID"]
    assert [row[1] for row in rows[1:]] == ["Start", *["Turn"] * 6, "End"]
    assert rows[2][3:5] == ["grep,read_file", "Ok,Ok"]
    summary = await kubectl.run("get", "agenttask", demo.TASK, "-o", demo.SUMMARY)
    assert "All 8 tests pass" in summary
    turn = await kubectl.run("get", "agenttask", demo.TASK, "-o", demo.END)
    patch = await kubectl.run("get", "agentturn", turn, "-o", demo.PATCH)
    assert "+            merged[-1] = (merged[-1][0], max(merged[-1][1], end))" in patch


async def test_a_namespace_with_a_running_task_goes_although_the_operator_is_gone(
    release: Release, tmp_path: Path
) -> None:
    kubectl = release.kubectl
    await release.start_example()
    await kubectl.wait_until(
        "agenttask", demo.TASK, lambda task: task.get("status", {}).get("turns", 0) >= 1
    )
    await release.uninstall()
    begin = time.monotonic()
    await kubectl.run("delete", "namespace", kubectl.namespace, "--timeout=30s")
    assert time.monotonic() - begin < 30


async def test_the_operators_account_may_do_what_it_must_and_little_else(release: Release) -> None:
    account = f"system:serviceaccount:{release.namespace}:{release.name}-operator"

    async def may(verb: str, resource: str, where: str = release.namespace) -> bool:
        kind, _, part = resource.partition("/")
        words = ["auth", "can-i", verb, kind, "--as", account, "--namespace", where]
        words += [f"--subresource={part}"] if part else []
        try:
            return (await release.kubectl.run(*words)).strip() == "yes"
        except Refused:
            return False

    assert await may("create", "pods")
    assert await may("patch", "agenttasks.ratchet.run/status")
    assert await may("create", "agentturns.ratchet.run")
    assert await may("watch", "modelendpoints.ratchet.run")
    assert await may("patch", "modelendpoints.ratchet.run/status")
    assert not await may("patch", "modelendpoints.ratchet.run")
    assert not await may("delete", "agentturns.ratchet.run")
    assert not await may("patch", "agentturns.ratchet.run")
    assert not await may("patch", "agenttasks.ratchet.run")
    assert not await may("list", "secrets")
    assert not await may("get", "secrets", "kube-system")
    assert not await may("create", "pods/exec")


async def test_people_who_may_edit_write_tasks_but_never_turns(release: Release) -> None:
    role = f"{release.name}-people"
    await release.kubectl.run("create", "rolebinding", role, "--clusterrole=edit", "--user=ada")
    answers = {}
    for verb, resource in (
        ("create", "agenttasks"),
        ("get", "agentturns"),
        ("create", "agentturns"),
        ("delete", "agentturns"),
        ("create", "modelendpoints"),
    ):
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": release.namespace},
            "spec": {
                "user": "ada",
                "resourceAttributes": {
                    "namespace": release.namespace,
                    "verb": verb,
                    "group": "ratchet.run",
                    "resource": resource,
                },
            },
        }
        answer = await release.kubectl.run(
            "create", "-f", "-", "-o", "json", stdin=json.dumps(review)
        )
        answers[verb, resource] = bool(json.loads(answer)["status"]["allowed"])
    assert answers == {
        ("create", "agenttasks"): True,
        ("get", "agentturns"): True,
        ("create", "agentturns"): False,
        ("delete", "agentturns"): False,
        ("create", "modelendpoints"): False,
    }
