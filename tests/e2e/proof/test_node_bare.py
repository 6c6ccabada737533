"""Many sandboxes without processes: for tests of hundreds of tasks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sglang_fake import FakeSGLang

from tests.cluster import Cluster
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.proof.conftest import IMAGE
from tests.e2e.proof.test_node import FINISH, bash, script
from tests.e2e.scene import Scene
from tests.proof.node import ProcessNode

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
TASKS = 60


async def test_many_tasks_have_a_bare_sandbox_each_and_come_to_their_end(
    cluster: Cluster, scene: Scene, tmp_path: Path
) -> None:
    images = {"server": IMAGE, "runner": IMAGE}
    log = tmp_path / "operator.log"
    began = time.monotonic()
    async with (
        ProcessNode(cluster, tmp_path / "bare", bare=True) as node,
        FakeSGLang(script(bash("whatever"), FINISH)) as fake,
        OperatorProcess(cluster.kubeconfig, scene.namespace, images, log),
    ):
        await scene.defaults(fake.base_url)
        await node.adopt(scene.namespace)
        names = [f"bare-{n}" for n in range(TASKS)]
        await scene.kubectl.apply(*(scene.object("AgentTask", n, goal="Go.") for n in names))
        ended = [await scene.ended(name, 240) for name in names]
        print(f"{TASKS} tasks in {time.monotonic() - began:.1f} s")
        await scene.kubectl.wait_gone("pod", within_s=60)
    assert {task["status"]["phase"] for task in ended} == {"Succeeded"}
    assert len(node.sandboxes) == TASKS
    records = await scene.turns(ended[0])
    key = f"{ended[0]['metadata']['uid']}/1/0"
    assert records[1]["status"]["results"][0]["content"] == key
