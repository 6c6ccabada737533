"""The pod of a task whose workspace starts from a git repository."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ratchet.build import paths
from ratchet.build.generation import Generation
from ratchet.build.git import CLONE, KEYS, LASTING, needed_keys, with_clone
from ratchet.build.pod import sandbox_pod
from ratchet.build.podstate import PodState, Stage, sandbox_condition
from ratchet.build.settings import SandboxSettings
from ratchet.core.conditions import Reason
from ratchet.core.config import GitSource, SandboxConfig, VolumeClaim
from ratchet_sandbox import protocol
from ratchet_sandbox.runner import clone

GENERATION = Generation("team-a", "fix-it", "0f3c9a1e-5555-4444-8888-121212121212", 1)
SETTINGS = SandboxSettings("server:1", "runner:1", "ratchet-system")
SHAPE = SandboxConfig(image="python:3.12", workspace_size_limit="1Gi")
SOURCE = GitSource("https://git.example.com/x.git", "main", "git-cred", 5)


def pod(source: GitSource = SOURCE, shape: SandboxConfig = SHAPE) -> dict[str, Any]:
    return with_clone(sandbox_pod(GENERATION, shape, SETTINGS), source, shape)


def containers(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    spec = made["spec"]
    return {one["name"]: one for one in (*spec["initContainers"], *spec["containers"])}


def test_the_clone_is_made_before_the_workspace_is_prepared() -> None:
    names = [one["name"] for one in pod()["spec"]["initContainers"]]
    assert names[-2:] == [CLONE, "prepare"]
    assert containers(pod())["prepare"]["command"][-1] == "--cloned"


def test_the_credential_is_mounted_where_it_is_cloned_and_nowhere_else() -> None:
    made = pod()
    (volume,) = (
        v for v in made["spec"]["volumes"] if v.get("secret", {}).get("secretName") == "git-cred"
    )
    assert volume["secret"]["items"] == [{"key": key, "path": key} for key in KEYS]
    for own in (volume["name"], "clone"):
        holders = [
            n for n, c in containers(made).items() if own in {m["name"] for m in c["volumeMounts"]}
        ]
        assert holders == [CLONE]
    assert "git-cred" not in json.dumps([c.get("env") for c in containers(made).values()])


def test_the_container_is_as_confined_as_the_one_that_prepares() -> None:
    made = containers(pod())
    assert made[CLONE]["securityContext"] == made["prepare"]["securityContext"]
    assert made[CLONE]["image"] == made["prepare"]["image"]
    assert made[CLONE]["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert "files" not in {m["name"] for m in made[CLONE]["volumeMounts"]}


@pytest.mark.parametrize(
    ("shape", "room"),
    [
        (SHAPE, 2**30 * 3 // 4),
        (SandboxConfig("x", claim=VolumeClaim("4Gi")), 2**32 * 3 // 4),
    ],
)
def test_the_program_understands_what_it_is_given(shape: SandboxConfig, room: int) -> None:
    command = containers(pod(shape=shape))[CLONE]["command"]
    assert tuple(command[: len(paths.CLONE)]) == paths.CLONE
    options = clone.parser().parse_args(command[len(paths.CLONE) :])
    assert (options.url, options.ref, options.depth) == ("https://git.example.com/x.git", "main", 5)
    assert (options.secret_name, options.bytes) == ("git-cred", room)


def test_without_a_secret_none_is_mounted_and_what_is_not_given_is_left_out() -> None:
    made = pod(GitSource("http://git.example.com/x.git"))
    assert all(volume["name"] != "git" for volume in made["spec"]["volumes"])
    options = clone.parser().parse_args(containers(made)[CLONE]["command"][len(paths.CLONE) :])
    assert (options.ref, options.depth, options.secret_name) == ("", None, "")


def test_the_pod_without_git_is_as_before() -> None:
    plain = sandbox_pod(GENERATION, SHAPE, SETTINGS)
    assert CLONE not in {one["name"] for one in plain["spec"]["initContainers"]}
    with_clone(plain, SOURCE, SHAPE)
    assert plain == sandbox_pod(GENERATION, SHAPE, SETTINGS)


def test_a_secret_must_have_what_the_protocol_needs() -> None:
    assert needed_keys(SOURCE) == (("password", "token", "ca.crt"),)
    assert needed_keys(GitSource("ssh://git@git.example.com/x")) == (
        ("ssh-privatekey",), ("known_hosts",),
    )  # fmt: skip


def test_the_pod_and_the_image_agree() -> None:
    assert paths.GIT_SECRET == protocol.GIT_SECRET_DIR
    assert paths.GIT_SCRATCH == protocol.GIT_SCRATCH_DIR
    assert LASTING == clone.LASTING


# --- what is told of it --------------------------------------------------------------------------


def failed(code: int, restarts: int = 0, message: str = "git repository x: no.") -> PodState:
    ended = {"terminated": {"reason": "Error", "exitCode": code, "message": message}}
    status = {"name": CLONE, "restartCount": restarts, "state": {}, "lastState": ended}
    scheduled = {"type": "PodScheduled", "status": "True"}
    return sandbox_condition({
        "metadata": {"name": "fix-g1"},
        "status": {"phase": "Pending", "conditions": [scheduled], "initContainerStatuses": [status]},
    })  # fmt: skip


def test_a_clone_that_cannot_succeed_is_told_in_its_own_words_at_once() -> None:
    told = failed(LASTING)
    assert (told.stage, told.reason) == (Stage.BROKEN, Reason.GIT_CLONE_FAILED)
    assert told.message == "The clone failed: git repository x: no."


def test_a_clone_that_may_succeed_is_waited_for_a_while() -> None:
    assert failed(1).stage is Stage.STARTING
    assert "is tried again" in failed(1).message
    assert failed(1, restarts=3).stage is Stage.BROKEN
    assert "without a word (Error, exit code 137)" in failed(137, message="").message


def test_a_clone_that_is_done_is_no_trouble() -> None:
    assert failed(0).reason is Reason.SANDBOX_STARTING
