"""The example is what it says: a project with one real bug, and a script that mends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.profile import AgentProfile
from ratchet.api.resolve import resolve
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.task import AgentTask
from ratchet.core.config import Config
from ratchet.edges.schemas import check_arguments
from sglang_fake.script import Call, load_script

from tools import images, install

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "fix-failing-test"


def manifest(name: str) -> Any:
    """One manifest of the example."""
    return yaml.safe_load((EXAMPLE / f"{name}.yaml").read_text())


def task() -> AgentTask:
    return AgentTask.model_validate(with_uid(manifest("task")))


def with_uid(body: dict[str, Any]) -> dict[str, Any]:
    """As the API server would return it."""
    body["metadata"] |= {"namespace": "demo", "uid": "0f3c9a1e-5555-4444-8888-121212121212"}
    return body


def calls() -> list[Call]:
    """All calls of the script, in order."""
    (conversation,) = load_script(EXAMPLE / "model-script.yaml").conversations
    return [call for turn in conversation.turns if turn.reply for call in turn.reply.tool_calls]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The task's files, as they are in the workspace."""
    for file in task().spec.files or ():
        target = tmp_path / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.content or "")
    return tmp_path


def run_tests(project: Path) -> str:
    """What `python3 -m unittest` says there."""
    argv = [sys.executable, "-m", "unittest"]
    return subprocess.run(argv, cwd=project, capture_output=True, text=True, check=False).stderr


def test_its_manifests_make_a_configuration() -> None:
    config = resolve(
        task(),
        AgentProfile.model_validate(with_uid(manifest("profile"))),
        endpoints=[ModelEndpoint.model_validate(with_uid(manifest("model-endpoint")))],
        sandbox_class=SandboxClass.model_validate(with_uid(manifest("sandbox-class"))),
    )
    assert isinstance(config, Config)
    assert config.limits.turns == 20
    assert config.model.url == install.FAKE_URL


def test_its_shell_is_an_image_that_is_built() -> None:
    assert manifest("sandbox-class")["spec"]["image"] in [image.tag for image in images.IMAGES]


def test_one_test_fails_before_and_none_after_the_scripts_edit(project: Path) -> None:
    assert "FAILED (failures=1)" in run_tests(project)
    (edit,) = [call.arguments for call in calls() if call.name == "search_replace"]
    assert isinstance(edit, dict)
    head, _, new = edit["content"].removesuffix(">>>>>>> REPLACE\n").partition("=======\n")
    old = head.removeprefix("<<<<<<< SEARCH\n")
    target = project / edit["path"]
    text = target.read_text()
    assert text.count(old) == 1
    target.write_text(text.replace(old, new))
    assert run_tests(project).rstrip().endswith("OK")


def test_the_script_calls_tools_that_exist_with_arguments_that_fit() -> None:
    for call in calls():
        assert isinstance(call.arguments, dict)
        assert not check_arguments(call.name, call.arguments)
    assert calls()[-1].name == "finish"


def test_the_script_is_for_this_task() -> None:
    (conversation,) = load_script(EXAMPLE / "model-script.yaml").conversations
    assert (conversation.match.contains or "-") in task().spec.goal
