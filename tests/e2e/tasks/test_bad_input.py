"""Bad input gets a sentence that says what to do: from the API server, or in a condition."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from sglang_fake import FakeSGLang, Settings

from tests.e2e.kubectl import Refused
from tests.e2e.operator_process import OperatorProcess, free_port
from tests.e2e.scene import Scene
from tests.e2e.tasks.test_reliability import FINISH, script

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({"goal": ""}, "goal", id="an empty goal"),
        pytest.param({"goal": "g", "colour": "red"}, "colour", id="an unknown field"),
        pytest.param({"goal": "g", "limits": {"turns": 0}}, "limits.turns", id="no turns at all"),
        pytest.param({"goal": "g" * 2**20}, "goal", id="a goal of 1 MB"),
    ],
)
async def test_the_api_server_refuses_it_with_the_name_of_the_field(
    scene: Scene, spec: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refused, match=says) as refused:
        await scene.kubectl.run(
            "create", "-f", "-", stdin=_yaml(scene.object("AgentTask", "bad", **spec))
        )
    assert "Traceback" not in str(refused.value)


async def test_a_name_of_253_characters_is_refused_with_the_bound(scene: Scene) -> None:
    with pytest.raises(Refused, match="200"):
        await scene.kubectl.run(
            "create", "-f", "-", stdin=_yaml(scene.object("AgentTask", "n" * 253, goal="g"))
        )


async def test_a_changed_goal_is_refused_as_immutable(scene: Scene) -> None:
    await scene.start("fixed", goal="one")
    with pytest.raises(Refused, match="is immutable"):
        await scene.start("fixed", goal="two")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"profileRef": {"name": "nobody"}}, "ProfileNotFound", id="profile"),
        pytest.param(
            {"model": {"endpointRef": {"name": "nowhere"}}}, "EndpointNotFound", id="endpoint"
        ),
        pytest.param({"sandbox": {"classRef": {"name": "none"}}}, "ClassNotFound", id="class"),
    ],
)
async def test_a_missing_reference_is_named_and_waited_for(
    scene: Scene, operator: OperatorProcess, spec: dict[str, Any], reason: str
) -> None:
    await scene.defaults("http://127.0.0.1:9/v1")
    await scene.start("refers", **spec)
    task = await scene.kubectl.wait_until(
        "agenttask", "refers", lambda t: t.get("status", {}).get("reason") == reason, 30
    )
    assert task["status"]["phase"] == "Waiting"
    name = next(iter(spec.values()))
    assert _innermost(name) in task["status"]["message"]


async def test_an_endpoint_that_refuses_connections_ends_the_task_with_its_address(
    scene: Scene, operator: OperatorProcess
) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    await scene.defaults(url)
    await scene.start("nobody-there", retryPolicy={"model": {"attempts": 2, "giveUpSeconds": 0}})
    task = await scene.ended("nobody-there")
    assert task["status"]["reason"] == "ModelUnreachable"
    assert url in task["status"]["message"]


async def test_a_wrong_key_ends_the_task_at_once(scene: Scene, operator: OperatorProcess) -> None:
    async with FakeSGLang(script(FINISH), Settings(api_key="right")) as fake:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "key"},
            "stringData": {"key": "wrong"},
        }
        await scene.kubectl.apply(secret)
        await scene.defaults(fake.base_url, apiKeySecretRef={"name": "key", "key": "key"})
        await scene.start("locked-out")
        task = await scene.ended("locked-out")
        assert len(fake.requests) <= 1
    assert task["status"]["reason"] == "ModelUnauthorized"
    assert "401" in task["status"]["message"]


async def test_an_image_that_does_not_exist_is_named(
    scene: Scene, operator: OperatorProcess
) -> None:
    async with FakeSGLang(script(FINISH)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("no-image", sandbox={"image": "localhost/no-such-image:1"})
        task = await scene.kubectl.wait_until(
            "agenttask",
            "no-image",
            lambda t: t.get("status", {}).get("reason") == "ImageUnavailable",
            60,
        )
        assert "localhost/no-such-image:1" in task["status"]["message"]
        task = await scene.ended("no-image", 120)
    assert task["status"]["reason"] == "SandboxFailed"
    assert "localhost/no-such-image:1" in task["status"]["message"]


async def test_arguments_that_do_not_fit_are_explained_to_the_model_and_then_to_the_person(
    scene: Scene, operator: OperatorProcess
) -> None:
    wrong = {"reply": {"tool_calls": [{"name": "bash", "arguments": {"cmd": "ls"}}]}, "repeat": 3}
    async with FakeSGLang(script(wrong)) as fake:
        await scene.defaults(fake.base_url)
        await scene.start("misfit", retryPolicy={"model": {"repairs": 2}})
        task = await scene.ended("misfit")
    assert task["status"]["reason"] == "RepairsExhausted"
    assert "command" in task["status"]["message"]
    records = await scene.turns(task)
    assert [r["spec"]["reply"]["verdict"] for r in records[1:-1]] == ["Malformed"] * 3


def _yaml(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest)


def _innermost(value: Any) -> str:
    while isinstance(value, dict):
        value = next(iter(value.values()))
    return str(value)
