"""What the process node says of a pod is what the operator reads out of a kubelet's words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ratchet.build.pod import PREPARE, SERVER, SHELL
from ratchet.build.podstate import Stage, sandbox_condition
from ratchet.core.conditions import Reason

from tests.proof.node import status
from tests.proof.node.status import Ended, Seen

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
INIT = Seen(PREPARE, "runner:1", "processes://i", NOW, ready=True)
UP = Seen(SHELL, "shell:1", "processes://b", NOW, ready=True)


def pod(*containers: Seen) -> dict[str, Any]:
    found = status.running("127.16.0.1", NOW, NOW, INIT, list(containers))
    return {"metadata": {"name": "it"}, "spec": {}, "status": found}


def server(**more: Any) -> Seen:
    return Seen(SERVER, "server:1", "processes://a", **{"began": NOW, "ready": True, **more})


def test_a_pod_with_both_containers_ready_is_ready_and_has_its_address() -> None:
    whole = pod(server(), UP)
    assert sandbox_condition(whole).stage is Stage.READY
    assert whole["status"]["podIP"] == "127.16.0.1"


@pytest.mark.parametrize("seen", [server(ready=False), server(began=None, ready=False)])
def test_a_pod_without_a_ready_server_is_starting(seen: Seen) -> None:
    assert sandbox_condition(pod(seen, UP)).stage is Stage.STARTING


def test_a_killed_container_is_shown_with_how_it_ended_and_how_often() -> None:
    ended = Ended(137, NOW, NOW, "processes://old")
    whole = pod(server(ready=False, restarts=1, last=ended), UP)
    assert sandbox_condition(whole).reason is Reason.SANDBOX_RESTARTING
    shown = whole["status"]["containerStatuses"][0]
    assert shown["restartCount"] == 1
    assert shown["lastState"]["terminated"]["exitCode"] == 137
    assert shown["containerID"] != shown["lastState"]["terminated"]["containerID"]


def test_an_evicted_pod_has_failed() -> None:
    whole = pod(status.gone(server()), status.gone(UP))
    whole["status"] |= status.evicted("out of memory")
    assert sandbox_condition(whole).stage is Stage.FAILED
    ready = next(c for c in whole["status"]["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "False"
