"""Two hundred tasks go on within seconds after the operator was killed, and the model is not flooded."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ratchet.edges import kube
from ratchet.edges.kube import Kube
from sglang_fake import FakeSGLang, Script

from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

TASKS = 200
RESUMED_WITHIN_S = 10.0
MOST_REQUESTS_A_SECOND = 50

THINKS_LONG = Script.model_validate(
    {"conversations": [{"turns": [{"reply": {"content": "Well."}, "delay_s": 600}]}]}
)


async def test_two_hundred_tasks_go_on_within_ten_seconds_and_do_not_flood_the_model(
    scene: Scene, operator: OperatorProcess, api: Kube
) -> None:
    async with FakeSGLang(THINKS_LONG) as fake:
        await scene.defaults(fake.base_url)
        # No node can take these pods: 200 sandboxes stay Pending, and the model is asked meanwhile.
        huge = {"requests": {"cpu": "900"}, "limits": {"cpu": "900"}}
        image = scene.shell_image
        await scene.kubectl.apply(
            scene.object("SandboxClass", "default", image=image, resources=huge)
        )
        tasks = [scene.object("AgentTask", f"many-{n}", goal="Think.") for n in range(TASKS)]
        await scene.kubectl.apply(*tasks)
        await fake.wait_until(lambda _: fake.in_flight == TASKS, 120)
        await operator.kill()
        operator.pod = "operator-1"  # its container is started again in the same pod
        await fake.wait_until(lambda _: fake.in_flight == 0, 60)
        first = len(fake.requests)
        begun, begun_clock = time.monotonic(), time.time()
        await operator.start()
        ready = time.monotonic() - begun
        await fake.wait_until(lambda _: fake.in_flight == TASKS, 120)
        took = time.monotonic() - begun
        arrived = [seen.arrived - begun_clock for seen in fake.requests[first:]]
        print(
            f"ready {ready:.1f} s, all asked {took:.1f} s, first {arrived[0]:.1f}, "
            f"most in a second {densest(arrived)}"
        )
        statuses = await status_of_all(api, scene.namespace)
    assert [status["owner"]["epoch"] for status in statuses] == [2] * TASKS
    assert [status["lostRequests"] for status in statuses] == [1] * TASKS
    assert len(arrived) == TASKS
    assert densest(arrived) <= MOST_REQUESTS_A_SECOND
    assert took < RESUMED_WITHIN_S


def densest(times: list[float], window_s: float = 1.0) -> int:
    """The most of these moments that lie within one window."""
    ordered = sorted(times)
    return max(
        sum(t <= later < t + window_s for later in ordered[i:]) for i, t in enumerate(ordered)
    )


async def status_of_all(api: Kube, namespace: str) -> list[dict[str, Any]]:
    listed = await api.request("GET", kube.task(namespace, ""))
    return [item["status"] for item in listed["items"]]
