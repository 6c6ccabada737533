"""Parsing objects as the API server gives them."""

from typing import Any

import pytest
from pydantic import ValidationError
from ratchet.api.conditions import Phase
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.task import AgentTask
from ratchet.api.turn import AgentTurn


def task(**more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ratchet.run/v1alpha1",
        "kind": "AgentTask",
        "metadata": {"name": "one", "namespace": "here", "uid": "u", "resourceVersion": "7"},
        "spec": {"goal": "Fix it."},
        **more,
    }


def test_a_task_as_it_was_applied_is_pending_and_unseen() -> None:
    parsed = AgentTask.model_validate(task())
    assert parsed.status.phase is Phase.PENDING
    assert parsed.status.observed_generation == -1
    assert parsed.metadata.resource_version == "7"
    assert parsed.spec.limits is None


def test_fields_of_a_newer_version_are_passed_over() -> None:
    newer = task(spec={"goal": "x", "mood": "good"}, status={"phase": "Running", "aura": {"a": 1}})
    assert AgentTask.model_validate(newer).status.phase is Phase.RUNNING


def test_a_goal_of_one_megabyte_is_refused_here_too() -> None:
    with pytest.raises(ValidationError, match="goal"):
        AgentTask.model_validate(task(spec={"goal": "x" * 1_000_000}))


def test_what_is_written_uses_the_names_of_the_api_and_leaves_out_what_is_not_given() -> None:
    parsed = AgentTask.model_validate(task(spec={"goal": "x", "activeDeadlineSeconds": 5}))
    spec = parsed.spec.model_dump(by_alias=True, exclude_none=True)
    assert spec == {"goal": "x", "activeDeadlineSeconds": 5}


def test_types_are_frozen() -> None:
    parsed = AgentTask.model_validate(task())
    with pytest.raises(ValidationError, match="frozen"):
        parsed.spec.goal = "other"


def test_a_quantity_is_taken_as_number_or_text() -> None:
    parsed = SandboxClass.model_validate(
        {
            "spec": {
                "image": "debian",
                "resources": {"limits": {"cpu": 2, "memory": "1Gi", "ephemeral-storage": "3Gi"}},
            }
        }
    )
    assert parsed.spec.resources is not None and parsed.spec.resources.limits is not None
    limits = parsed.spec.resources.limits
    assert (limits.cpu, limits.memory, limits.ephemeral_storage) == ("2", "1Gi", "3Gi")


def test_a_turn_keeps_its_strings_as_they_are() -> None:
    arguments = '{"command": "printf \\"ä\\n\\""}'
    parsed = AgentTurn.model_validate(
        {
            "spec": {
                "taskRef": {"name": "one", "uid": "u"},
                "number": 1,
                "kind": "Turn",
                "journalVersion": 1,
                "epoch": 3,
                "reply": {
                    "verdict": "Calls",
                    "calls": [
                        {
                            "index": 0,
                            "id": "abc",
                            "tool": "bash",
                            "arguments": arguments,
                            "digest": "sha256:" + "0" * 64,
                        }
                    ],
                },
            }
        }
    )
    assert parsed.spec.reply is not None
    assert parsed.spec.reply.calls[0].arguments == arguments
    assert parsed.status.results is None
