"""Two hundred tasks go on after their operator was killed, and the model is not flooded."""

from __future__ import annotations

import pytest
from ratchet.edges.kube import Kube

from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene
from tests.proof.resume import MOST_A_SECOND, TASKS, resume

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


async def test_two_hundred_tasks_go_on_and_do_not_flood_the_model(
    scene: Scene, operator: OperatorProcess, api: Kube
) -> None:
    operator.pod = "operator-1"  # its container is started again in the same pod
    found = await resume(scene, operator, api)
    print(f"all asked after {max(found.asked_s):.1f} s, most in a second: {found.densest}")
    assert len(found.asked_s) == TASKS
    assert [status["owner"]["epoch"] for status in found.statuses] == [2] * TASKS
    assert [status["lostRequests"] for status in found.statuses] == [1] * TASKS
    assert found.densest <= MOST_A_SECOND
    assert not found.findings.broken
