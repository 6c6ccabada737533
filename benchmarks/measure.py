"""One benchmark from its namespace to its figures."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import floor, trace, writes
from benchmarks.bare import api_server
from benchmarks.figures import Figures, RunFigures
from benchmarks.floor import Floor
from benchmarks.load.figures import LoadFigures
from benchmarks.processes import MeasuredOperator, scripted_model
from benchmarks.sandbox.figures import SandboxFigures
from benchmarks.scripts import Run
from benchmarks.stage import BEGIN_WITHIN_S, Object, Stage, set_up
from benchmarks.writes import LEASE, Write
from tests.cluster import Cluster
from tests.e2e import images

SETTLE_S = 1.5
"""After the last change, until the operator has written the last summary of it."""
IDLE_S = 5.0
"""How long the writes of an idle cluster are counted, to be taken off."""
SLACK_S = 1.0
"""What a turn may take beyond the model's time before the benchmark is given up."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that is through; its times are in the operator's trace."""

    run: Run
    uid: str
    writes: dict[Write, float]


async def measure(
    cluster: Cluster,
    fast: Run,
    slow: Run,
    sandboxes: SandboxFigures,
    load: LoadFigures,
    folder: Path,
    *,
    profile: bool = False,
) -> Figures:
    """Run both tasks and the floor. Raises NotMeasured. Logs and notes are left in `folder`."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_server(cluster.kubeconfig, cluster.context))
        model_url = await stack.enter_async_context(scripted_model((fast, slow), folder))
        stage = await stack.enter_async_context(set_up(cluster, api))
        await stage.tasks.defaults(model_url)
        operator = MeasuredOperator(
            cluster.kubeconfig,
            stage.namespace,
            {"server": images.SERVER, "runner": images.RUNNER},
            folder / "operator.log",
            folder=folder,
            profile=profile,
        )
        async with operator:
            ran_fast, task = await _run(stage, fast, folder)
            request = (folder / f"request-{ran_fast.uid}.json").read_text()
            scene = await _scene(stage, task, fast, request, model_url)
            rounds = await floor.measure(api, scene, fast.turns)
            await _end(stage, fast)
            ran_slow, _ = await _run(stage, slow, folder)
            await _end(stage, slow)
    notes = trace.load(folder / "trace.jsonl")
    return Figures(
        fast=_figures(notes, ran_fast),
        slow=_figures(notes, ran_slow),
        floor=Floor.of(rounds),
        peak_mib=notes.peak_mib,
        ops=trace.medians(notes, ran_fast.uid),
        sandbox=sandboxes,
        load=load,
    )


async def _run(stage: Stage, run: Run, folder: Path) -> tuple[Ran, Object]:
    """Run one task up to the request that the model does not answer any more."""
    await stage.tasks.start(run.name, goal=run.goal, limits={"turns": run.played + 1})
    task = await stage.until_asking(run.name, 1, BEGIN_WITHIN_S)
    uid = task["metadata"]["uid"]
    await asyncio.sleep(SETTLE_S)
    idle = await stage.reading()
    await asyncio.sleep(IDLE_S)
    before = await stage.reading()
    word = folder / f"go-{uid}.part"
    word.write_text(str(run.played // 2 + 1))
    word.rename(folder / f"go-{uid}")
    within_s = BEGIN_WITHIN_S + run.played * (run.delay_s + SLACK_S)
    task = await stage.until_asking(run.name, run.played + 1, within_s)
    after = await stage.reading()
    seconds = after.at - before.at
    found = writes.per_turn(
        writes.between(before.accepted, after.accepted),
        writes.rates(writes.between(idle.accepted, before.accepted), before.at - idle.at),
        seconds,
        run.played,
    )
    found[LEASE] = stage.leases.between(before, after) / run.played
    return Ran(run, uid, found), task


async def _scene(stage: Stage, task: Object, run: Run, request: str, model_url: str) -> floor.Scene:
    return floor.Scene(
        task=task,
        turn=await stage.turn(task, run.played // 2),
        pod=await stage.sandbox_part("pod", task),
        secret=await stage.sandbox_part("secret", task),
        request=request,
        model_url=model_url,
    )


async def _end(stage: Stage, run: Run) -> None:
    """Delete the task, and wait until its pod is gone and the machine is at rest again."""
    await stage.kubectl.run("delete", "agenttask", run.name, "--wait=false")
    await stage.kubectl.wait_gone("pods", within_s=60)


def _figures(notes: trace.Trace, ran: Ran) -> RunFigures:
    asked = trace.journal_calls(notes, ran.uid) / ran.run.turns
    return RunFigures(ran.run, trace.turns(notes, ran.uid), ran.writes, asked)
