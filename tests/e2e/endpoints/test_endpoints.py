"""ModelEndpoints as a user sees them: conditions, columns, and tasks that queue."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sglang_fake import FakeSGLang, Script, Settings

from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

KEY = "key-of-the-test"
FINISH = {"reply": {"tool_calls": [{"name": "finish", "arguments": {"summary": "done"}}]}}
SCRIPT = Script.model_validate({"conversations": [{"name": "all", "turns": [FINISH]}]})


async def ready(scene: Scene, name: str, reason: str, within_s: float = 60.0) -> dict[str, Any]:
    """Wait until the condition Ready of an endpoint has this reason, and return the endpoint."""
    return await scene.kubectl.wait_until(
        "modelendpoint", name, lambda it: condition(it, "Ready").get("reason") == reason, within_s
    )


def condition(endpoint: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of an endpoint; empty if there is none."""
    found = endpoint.get("status", {}).get("conditions", ())
    return next((dict(c) for c in found if c["type"] == kind), {})


async def test_the_conditions_of_an_endpoint_name_what_is_wrong_with_it(
    scene: Scene, operator: OperatorProcess
) -> None:
    async with FakeSGLang(SCRIPT, Settings(model="fake", api_key=KEY)) as fake:
        keyed = {"apiKeySecretRef": {"name": "model-key", "key": "key"}, "engine": "SGLang"}
        good = {"url": fake.base_url, "model": "fake", **keyed}
        await scene.kubectl.apply(
            scene.object("ModelEndpoint", "good", **good),
            scene.object("ModelEndpoint", "other-model", **{**good, "model": "other"}),
            scene.object("ModelEndpoint", "no-key", url=fake.base_url, model="fake"),
            scene.object("ModelEndpoint", "nobody", url="http://127.0.0.1:9/v1", model="fake"),
        )
        missing = await ready(scene, "good", "SecretNotFound")
        assert "there is no Secret" in condition(missing, "Ready")["message"]
        await ready(scene, "nobody", "Unreachable")
        await ready(scene, "no-key", "Unauthorized")
        await scene.kubectl.run(
            "create", "secret", "generic", "model-key", f"--from-literal=key={KEY}"
        )
        # The key is looked for again by itself: the Secret is not watched.
        served = await ready(scene, "good", "Serving", within_s=90)
        assert condition(served, "Saturated")["reason"] == "PlacesFree"
        other = await ready(scene, "other-model", "ModelNotServed")
        assert "does not list 'other', but fake" in condition(other, "Ready")["message"]
        table = await scene.kubectl.run("get", "modelendpoints", "-o", "wide")
    assert KEY not in json.dumps([served, other, missing]) and KEY not in operator.log.read_text()
    rows = {line.split()[0]: line.split() for line in table.splitlines()[1:]}
    assert "True" in rows["good"] and "False" in rows["other-model"]


async def test_tasks_queue_at_an_endpoint_and_the_server_turns_nobody_away(
    scene: Scene, operator: OperatorProcess
) -> None:
    settings = Settings(model="fake", max_running=2, max_queued=0, latency_s=4.0)
    async with FakeSGLang(SCRIPT, settings) as fake:
        await scene.defaults(fake.base_url, capacity={"requests": 2})
        names = [f"queues-{number}" for number in range(8)]
        for name in names:
            await scene.start(name)
        queued = await scene.kubectl.wait_until("agenttask", names[-1], _is_queued, 60)
        assert re.search(
            r"[Pp]lace \d of \d at endpoint \S+/default: all 2 places are taken",
            json.dumps(queued["status"]),
        ), queued["status"]
        await scene.kubectl.wait_until(
            "modelendpoint",
            "default",
            lambda it: condition(it, "Saturated")["status"] == "True",
            30,
        )
        tasks = [await scene.ended(name) for name in names]
        endpoint = await scene.kubectl.wait_until(
            "modelendpoint",
            "default",
            lambda it: (
                not it["status"]["running"] and condition(it, "Saturated")["status"] == "False"
            ),
            60,
        )
    assert {task["status"]["phase"] for task in tasks} == {"Succeeded"}
    assert [seen.status for seen in fake.requests] == [200] * len(names)
    assert "lastError" not in endpoint["status"] and endpoint["status"]["queued"] == 0
    assert endpoint["status"]["latency"]["p50Seconds"] >= 4


def _is_queued(task: dict[str, Any]) -> bool:
    return bool(task.get("status", {}).get("phase") == "Queued")
