"""Two hundred running tasks whose operator is killed and starts again: how soon they go on.

No node can take their pods, so the sandboxes stay Pending, and the model is asked meanwhile: 200 real
pods are more than a node takes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.edges import kube
from ratchet.edges.kube import Kube
from sglang_fake import FakeSGLang, Script

from tests.e2e import images
from tests.e2e.kubectl import Kubectl
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene
from tests.proof.lane import Lane
from tests.proof.rows import Findings, Row

TASKS = 200
ROW = f"operator killed: {TASKS} tasks go on"
MOST_A_SECOND = 50
"""Requests that the model may get within a second."""
ALL_WITHIN_S = 180.0
"""Until all have gone on, on the slowest machine; how soon they do is a figure and no check."""

THINKS_LONG = Script.model_validate(
    {"conversations": [{"turns": [{"reply": {"content": "Well."}, "delay_s": 600}]}]}
)


@dataclass(frozen=True, slots=True)
class Resumed:
    """What was seen of a restart."""

    asked_s: Sequence[float]
    """Seconds from the start of the process until the request of each task was at the model."""
    statuses: Sequence[dict[str, Any]]

    @property
    def densest(self) -> int:
        """The most requests within one second."""
        return densest(self.asked_s)

    @property
    def findings(self) -> Findings:
        """What should not be: tasks that were not taken over, requests not counted, a flood."""
        again = sum(status["owner"]["epoch"] == 2 for status in self.statuses)
        counted = sum(status["lostRequests"] for status in self.statuses)
        flood = self.densest > MOST_A_SECOND
        remarks = (f"{self.densest} requests in a second",) if flood else ()
        return Findings(
            stuck=len(self.statuses) - again + flood,
            uncounted=len(self.statuses) - counted,
            remarks=remarks,
        )


async def resume(scene: Scene, operator: OperatorProcess, api: Kube, tasks: int = TASKS) -> Resumed:
    """Have tasks asked for, kill the operator, start it again in the same pod.

    `operator` is started already. Raises TimeoutError if the tasks do not go on.
    """
    async with FakeSGLang(THINKS_LONG) as fake:
        await scene.defaults(fake.base_url)
        huge = {"requests": {"cpu": "900"}, "limits": {"cpu": "900"}}
        sandbox = scene.object("SandboxClass", "default", image=scene.shell_image, resources=huge)
        await scene.kubectl.apply(sandbox)
        names = (f"many-{number}" for number in range(tasks))
        await scene.kubectl.apply(*(scene.object("AgentTask", n, goal="Think.") for n in names))
        await fake.wait_until(lambda _: fake.in_flight == tasks, ALL_WITHIN_S)
        await operator.kill()
        await fake.wait_until(lambda _: fake.in_flight == 0, 60)
        before, begun = len(fake.requests), time.time()
        await operator.start()
        await fake.wait_until(lambda _: fake.in_flight == tasks, ALL_WITHIN_S)
        asked = [seen.arrived - begun for seen in fake.requests[before:]]
        listed = await api.request("GET", kube.tasks(scene.namespace))
    return Resumed(asked, [item["status"] for item in listed["items"]])


async def restart(place: Lane) -> Row:
    """One restart, as a row of L2. Nothing else should be done on the machine meanwhile."""
    cluster = place.stage.settings.cluster
    scene = Scene(Kubectl(cluster.kubeconfig, cluster.path, place.namespace), images.SHELL)
    await place.operator.start()
    found = await resume(scene, place.operator, place.stage.api)
    return Row("L2", ROW, 1, found.findings, tuple(found.asked_s), kills=1)


def densest(times: Sequence[float], window_s: float = 1.0) -> int:
    """The most of these moments that lie within one window."""
    ordered, first, most = sorted(times), 0, 0
    for index, moment in enumerate(ordered):
        while moment - ordered[first] >= window_s:
            first += 1
        most = max(most, index - first + 1)
    return most
