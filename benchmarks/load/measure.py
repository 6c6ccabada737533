"""One load from its namespace to its figures."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from ratchet.api import names
from ratchet.core.tools import CATALOGUE

from benchmarks.bare import Call, NotMeasured, api_server, get, session_at
from benchmarks.load import window
from benchmarks.load.figures import LoadFigures
from benchmarks.load.floor import Bare
from benchmarks.load.processes import cpu_s, model, peak_mib
from benchmarks.load.window import Span
from benchmarks.scripts import NO_OP
from benchmarks.stage import Object, Stage, set_up
from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.operator_process import REPO, OperatorProcess

TASKS, QUICK_TASKS = 200, 40
TURNS = 10
SLOTS = 32
LATENCY_S = 2.0
SAMPLE_S = 0.5
SLACK = 3.0
"""How many times of the ideal time a load may take before it is given up."""
START_S = 60.0
GOAL = "Load: call the no-op."
MERGE = {"Content-Type": "application/merge-patch+json"}


async def measure(cluster: Cluster, folder: Path, tasks: int, slots: int = SLOTS) -> LoadFigures:
    """All tasks are there before the operator starts. Raises NotMeasured."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_server(cluster.kubeconfig, cluster.context))
        options = ("--slots", str(slots), "--latency", str(LATENCY_S))
        url = await stack.enter_async_context(model(folder, _script(), *options))
        fake = await stack.enter_async_context(session_at(f"{url}/"))
        stage = await stack.enter_async_context(set_up(cluster, api))
        capacity = {"requests": slots}
        await stage.tasks.defaults(f"{url}/v1", capacity=capacity)
        for first in range(0, tasks, 50):
            many = range(first, min(first + 50, tasks))
            await stage.kubectl.apply(*(_task(stage, number) for number in many))
        operator = _operator(cluster, stage, folder)
        async with operator:
            samples = await _until_all_ended(stage, operator, tasks, slots)
            memory = peak_mib(operator)
        seen = json.loads(await get(fake, "fake/requests"))
        floor_ms = await _floor(cluster, stage, url, slots)
    good = [Span(s["arrived"], s["left"]) for s in _requests(seen) if s["status"] == 200]
    refused = sum(s["status"] in (429, 503) for s in _requests(seen))
    if len(good) < tasks * TURNS:
        raise NotMeasured(
            f"{len(good)} replies, and {tasks} tasks of {TURNS} turns had to have one"
        )
    span = window.busy(good)
    replies = window.replies(good, span)
    cpu = window.at(samples, span.end) - window.at(samples, span.begin)
    return LoadFigures(
        tasks=tasks,
        turns=TURNS,
        slots=slots,
        latency_s=LATENCY_S,
        throughput=replies / span.seconds,
        cpu_ms=1000 * cpu / replies,
        floor_cpu_ms=floor_ms,
        peak_mib=memory,
        refused=refused,
    )


def _script() -> str:
    """Calls of the no-op, then the end."""
    finish = {"name": "finish", "arguments": {"summary": "done"}}
    turns = [
        {"reply": {"tool_calls": [NO_OP]}, "repeat": TURNS - 1},
        {"reply": {"tool_calls": [finish]}},
    ]
    return json.dumps({"conversations": [{"name": "load", "turns": turns}]})


def _task(stage: Stage, number: int) -> Object:
    limits = {"turns": TURNS + 1}
    return stage.tasks.object("AgentTask", f"load-{number:03}", goal=GOAL, limits=limits)


def _operator(cluster: Cluster, stage: Stage, folder: Path) -> OperatorProcess:
    images_of = {"server": images.SERVER, "runner": images.RUNNER}
    return OperatorProcess(
        cluster.kubeconfig, stage.namespace, images_of, folder / "load-operator.log",
        module="benchmarks.load.operator",
    )  # fmt: skip


async def _until_all_ended(
    stage: Stage, operator: OperatorProcess, tasks: int, slots: int
) -> list[tuple[float, float]]:
    """Samples of (time, CPU seconds so far) until all tasks have ended, which a watch tells."""
    within_s = START_S + SLACK * tasks * TURNS * LATENCY_S / slots
    samples = [(time.time(), cpu_s(operator))]
    watching = asyncio.create_task(_ended(stage, tasks))
    try:
        async with asyncio.timeout(within_s):
            while not watching.done():
                await asyncio.wait((watching,), timeout=SAMPLE_S)
                samples.append((time.time(), cpu_s(operator)))
    except TimeoutError as error:
        raise NotMeasured(f"not all {tasks} tasks ended within {within_s:.0f} s") from error
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    watching.result()
    return samples


async def _ended(stage: Stage, tasks: int) -> None:
    """Watch until so many have succeeded. Raises NotMeasured for one that ends in another way."""
    path = f"apis/{names.API_VERSION}/namespaces/{stage.namespace}/{names.TASK_PLURAL}?watch=1"
    ended: set[str] = set()
    forever = aiohttp.ClientTimeout(total=None)
    async with stage.api.get(path, timeout=forever) as answer:
        async for line in answer.content:
            task = json.loads(line)["object"]
            status = task.get("status") or {}
            phase = status.get("phase")
            if phase in ("Failed", "Cancelled"):
                raise NotMeasured(f"{task['metadata']['name']}: {json.dumps(status)[:1000]}")
            if phase == "Succeeded":
                ended.add(task["metadata"]["uid"])
            if len(ended) == tasks:
                return
    raise NotMeasured("the watch of the tasks ended: run the benchmark again")


def _requests(seen: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = seen["requests"] if isinstance(seen, dict) else seen
    return found


async def _floor(cluster: Cluster, stage: Stage, model_url: str, slots: int) -> float:
    """CPU of a process that makes the calls of a turn and nothing else, in ms a turn."""
    bare = await _bare(cluster, stage, model_url, slots)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load.floor",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=REPO,
    )  # fmt: skip
    out, err = await process.communicate(bare.to_json().encode())
    if process.returncode:
        raise NotMeasured(f"the floor of the load: {err.decode()[-2000:]}")
    return float(out)


async def _bare(cluster: Cluster, stage: Stage, model_url: str, slots: int) -> Bare:
    """The calls of a middle turn of an ended task, again: a record, its results, a status, a request."""
    task = await stage.task("load-000")
    turn = await stage.turn(task, TURNS // 2)
    results = turn.pop("status")
    record = copy.deepcopy(turn)
    record["metadata"] = {
        "name": "floor-NUMBER",
        "namespace": stage.namespace,
        "labels": {**turn["metadata"]["labels"], names.LABEL_TASK_UID: "0" * 36},
    }
    turns = f"apis/{names.API_VERSION}/namespaces/{stage.namespace}/{names.TURN_PLURAL}"
    tasks = f"apis/{names.API_VERSION}/namespaces/{stage.namespace}/{names.TASK_PLURAL}"
    status = {**task["status"], "message": "NUMBER"}
    writes = (
        Call("POST", turns, json.dumps(record), {"Content-Type": "application/json"}),
        Call("PATCH", f"{turns}/floor-NUMBER/status", json.dumps({"status": results}), MERGE),
        Call("PATCH", f"{tasks}/load-000/status", json.dumps({"status": status}), MERGE),
    )
    messages = [{"role": "user", "content": GOAL * 50}]
    tools = [tool.for_model() for tool in CATALOGUE.values()]
    request = json.dumps({"model": "fake", "messages": messages, "tools": tools})
    ask = Call("POST", "v1/chat/completions", request, {"Content-Type": "application/json"})
    return Bare(cluster.kubeconfig, cluster.context, model_url, slots, LATENCY_S, writes, ask)
