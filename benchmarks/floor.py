"""The floor under a turn: one bare create, one bare call of the tool server, one of the model."""

from __future__ import annotations

import base64
import copy
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
from ratchet.api import names
from ratchet.core.keys import call_digest, canonical
from ratchet.edges.certificates import pinned_context, server_name

from benchmarks.bare import Call, session_at
from benchmarks.intervals import median
from benchmarks.scripts import NO_OP

WARM_UP = 5
"""Rounds that are not counted: connections are opened, caches are filled."""
FAR_TURN = 900_000_000
"""Number of a turn that no task reaches: the keys of the bare tool calls are below it."""
TOOL_PORT = 8443
TIMEOUT_S = 30

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the three bare calls, in ms."""

    create: float
    tool: float
    model: float


@dataclass(frozen=True, slots=True)
class Floor:
    """Medians over all rounds, in ms; `total` is the median of the rounds' sums."""

    create: float
    tool: float
    model: float
    total: float

    @classmethod
    def of(cls, rounds: list[Round]) -> Floor:
        return cls(
            create=median([r.create for r in rounds]),
            tool=median([r.tool for r in rounds]),
            model=median([r.model for r in rounds]),
            total=median([r.create + r.tool + r.model for r in rounds]),
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """What of a task that waits for its next reply the bare calls are made from.

    `turn` is a stored AgentTurn, `request` the body of the model request for such a turn.
    """

    task: Object
    turn: Object
    pod: Object
    secret: Object
    request: str
    model_url: str


async def measure(api: aiohttp.ClientSession, scene: Scene, rounds: int) -> list[Round]:
    """The three calls in turn, so that a drift of the machine's speed touches all alike."""
    create, tool, model = create_call(scene), tool_call(scene), model_call(scene)
    found = []
    async with AsyncExitStack() as stack:
        tools = await stack.enter_async_context(_tool_server(scene))
        models = await stack.enter_async_context(session_at(scene.model_url.rstrip("/") + "/"))
        for number in range(WARM_UP + rounds):
            found.append(
                Round(
                    create=await create.send(api, number),
                    tool=await tool.send(tools, number),
                    model=await model.send(models, number),
                )
            )
    return found[WARM_UP:]


def create_call(scene: Scene) -> Call:
    """Create an object as large as a turn, beside the task's own."""
    body = copy.deepcopy(scene.turn)
    body.pop("status", None)
    metadata = body["metadata"]
    body["metadata"] = {
        "name": f"{scene.task['metadata']['name']}-floor-NUMBER",
        "namespace": metadata["namespace"],
        # Not the task's own label: its history must not hold them. They still go with the task.
        "labels": {**metadata["labels"], names.LABEL_TASK_UID: "0" * 36},
        "ownerReferences": metadata["ownerReferences"],
    }
    path = f"apis/{names.API_VERSION}/namespaces/{metadata['namespace']}/{names.TURN_PLURAL}"
    return Call("POST", path, json.dumps(body), {"Content-Type": "application/json"})


def tool_call(scene: Scene) -> Call:
    """The no-op under keys of its own, and wait for its end."""
    status = scene.task["status"]
    arguments = canonical(NO_OP["arguments"])
    body = {
        "tool": NO_OP["name"],
        "arguments": arguments,
        "digest": call_digest(str(NO_OP["name"]), arguments),
        "softTimeoutSeconds": 30,
        "hardTimeoutSeconds": 30,
        "epoch": status["owner"]["epoch"],
        "ledger": status["sandbox"]["ledger"],
    }
    uid = scene.task["metadata"]["uid"]
    return Call(
        method="PUT",
        path=f"v1/calls/{uid}/{FAR_TURN}/NUMBER?wait=25",
        body=json.dumps(body),
        headers={"Authorization": f"Bearer {_secret(scene, 'token')}"},
        server_name=server_name(uid, status["sandbox"]["generation"]),
    )


def model_call(scene: Scene) -> Call:
    """A request of the task itself, once more."""
    headers = {"Content-Type": "application/json"}
    return Call("POST", "chat/completions", scene.request, headers)


def _tool_server(scene: Scene) -> aiohttp.ClientSession:
    address = scene.pod["status"]["podIP"]
    certificate = _secret(scene, "tls.crt")
    return session_at(f"https://{address}:{TOOL_PORT}/", pinned_context(certificate))


def _secret(scene: Scene, name: str) -> str:
    return base64.b64decode(scene.secret["data"][name]).decode()
