"""Parsing objects as the API server gives them."""

from typing import Any

import pytest
from pydantic import ValidationError
from ratchet.api.conditions import Phase
from ratchet.api.egress import EgressRule
from ratchet.api.git import GitSource
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


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/team/project.git",
        "http://git.tools.svc:8080/project",
        "ssh://git@git.example.com:2222/team/project.git",
        "https://[fd00::1]/project.git",
    ],
)
def test_a_repository_has_a_url_of_http_or_ssh(url: str) -> None:
    assert GitSource.model_validate({"url": url}).url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://user:word@git.example.com/p.git",
        "https://token@git.example.com/p.git",
        "ssh://-oProxyCommand=id/p.git",
        "ssh://git@-oProxyCommand=id/p.git",
        "ssh://git:word@git.example.com/p.git",
        "git@git.example.com:p.git",
        "file:///etc",
        "ext::sh -c id",
        "/etc",
        "https://git.example.com",
        "https://git.example.com/p.git?token=1",
        "https://git.example.com/a b",
    ],
)
def test_no_url_holds_a_password_a_command_or_a_path_of_the_machine(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        GitSource.model_validate({"url": url})


@pytest.mark.parametrize("ref", ["-x", "--upload-pack=id", "a b", "a..b:c", "HEAD~1", "", "a\n"])
def test_a_ref_is_never_an_option_or_an_expression(ref: str) -> None:
    with pytest.raises(ValidationError, match="ref"):
        GitSource.model_validate({"url": "https://h/p.git", "ref": ref})


def test_a_network_that_stays_closed_is_called_except() -> None:
    rule = EgressRule.model_validate(
        {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [{"port": 1}]}
    )
    assert rule.except_ == ("10.1.0.0/16",)


@pytest.mark.parametrize("host", ["*.example.com", "a.example.com", "xn--bcher-kva.example"])
def test_a_host_is_a_whole_name(host: str) -> None:
    assert EgressRule.model_validate({"host": host, "ports": [{"port": 1}]}).host == host


@pytest.mark.parametrize("host", ["*", "*.", "localhost", "a.*.com", "A.com", "a_b.com", "*.com."])
def test_a_part_of_a_name_is_no_host(host: str) -> None:
    with pytest.raises(ValidationError, match="host"):
        EgressRule.model_validate({"host": host, "ports": [{"port": 1}]})


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
