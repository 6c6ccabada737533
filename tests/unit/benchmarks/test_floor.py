"""The bare calls are like those of a turn, and disturb neither the task nor its history."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ratchet_sandbox import protocol
from sglang_fake.script import load_script

from benchmarks.floor import Floor, Round, Scene, create_call, model_call, tool_call
from benchmarks.scripts import Run, script

UID = "11111111-2222-3333-4444-555555555555"


def scene() -> Scene:
    owner = {"kind": "AgentTask", "uid": UID, "controller": True}
    turn: dict[str, Any] = {
        "apiVersion": "ratchet.run/v1alpha1",
        "kind": "AgentTurn",
        "metadata": {
            "name": "fast-11111111-t7",
            "namespace": "work",
            "uid": "x",
            "resourceVersion": "9",
            "labels": {"ratchet.run/task-uid": UID, "ratchet.run/turn": "7"},
            "ownerReferences": [owner],
        },
        "spec": {"number": 7, "reply": {"text": "hm"}},
        "status": {"results": []},
    }
    return Scene(
        task={
            "metadata": {"name": "fast", "uid": UID},
            "status": {"owner": {"epoch": 4}, "sandbox": {"generation": 2, "ledger": "l-1"}},
        },
        turn=turn,
        pod={"status": {"podIP": "10.0.0.9"}},
        secret={"data": {"token": base64.b64encode(b"hush").decode()}},
        request='{"messages":[]}',
        model_url="http://127.0.0.1:1/v1",
    )


def test_the_bare_object_is_as_large_as_a_turn_and_not_in_its_history() -> None:
    call = create_call(scene())
    body = json.loads(call.body)
    assert call.path == "apis/ratchet.run/v1alpha1/namespaces/work/agentturns"
    assert body["spec"] == scene().turn["spec"] and "status" not in body
    metadata = body["metadata"]
    assert metadata["labels"]["ratchet.run/task-uid"] != UID
    assert metadata["ownerReferences"] == scene().turn["metadata"]["ownerReferences"]
    assert set(metadata) == {"name", "namespace", "labels", "ownerReferences"}


def test_the_bare_tool_call_is_the_no_op_under_a_key_of_its_own() -> None:
    call = tool_call(scene())
    key = call.path.removeprefix("v1/calls/").partition("?")[0].replace("NUMBER", "3")
    assert protocol.is_key(key) and key.startswith(UID)
    body = json.loads(call.body)
    assert body["digest"] == protocol.digest_of(body["tool"], body["arguments"])
    assert (body["epoch"], body["ledger"]) == (4, "l-1")
    assert call.headers["Authorization"] == "Bearer hush"
    assert call.server_name == f"g2.{UID}.sandbox.ratchet"


def test_the_bare_model_call_is_a_request_of_the_task() -> None:
    assert model_call(scene()).body == scene().request


def test_the_floor_is_the_median_of_whole_rounds() -> None:
    rounds = [Round(1, 10, 100), Round(2, 30, 50), Round(3, 20, 60)]
    assert Floor.of(rounds) == Floor(create=2, tool=20, model=60, total=83)


def test_the_model_plays_one_turn_more_than_is_measured_and_then_is_silent(tmp_path: Path) -> None:
    runs = (Run("fast", 200, 0.0), Run("slow", 10, 2.0))
    path = tmp_path / "script.yaml"
    path.write_text(script(runs))
    fast, slow = load_script(str(path)).conversations
    assert [turn.repeat for turn in (*fast.turns, *slow.turns)] == [201, 1, 11, 1]
    assert (fast.turns[0].delay_s, slow.turns[0].delay_s) == (0.0, 2.0)
    assert fast.turns[1].error is not None and fast.turns[1].error.kind == "hang"
    assert fast.match.contains == runs[0].goal
