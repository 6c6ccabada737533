"""Lies and silence on the wire: what is done to requests and watches of one operator's namespace.

Each row does one thing to all the writes that matter, once to each, in the course of one task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from ratchet.edges.kube import ApiError, ApiUnreachable

from tests.e2e.operator_process import OperatorProcess
from tests.proof import sandboxproxy
from tests.proof.apiproxy import ApiProxy
from tests.proof.kills_cases import PATIENCE_S, broken
from tests.proof.lane import Lane, lane
from tests.proof.node import ProcessNode
from tests.proof.proxy.rules import Act, Rule, WatchAct, WatchRule
from tests.proof.rows import Findings, Row
from tests.proof.sandboxproxy import Harm, SandboxProxy
from tests.proof.stage import Stage

Tell = Callable[[str], None]
STATUS_OF_TASK = "/agenttasks/[^/]+/status"
CREATED = {
    "start": ("/agentturns", '"kind": ?"Start"', 1),
    "turn": ("/agentturns", '"kind": ?"Turn"', 2),
    "end": ("/agentturns", '"kind": ?"End"', 1),
    "pod": ("/pods", "", 1),
    "secret": ("/secrets", "", 1),
}
PATCHED = {
    "claim": (STATUS_OF_TASK, '"/status/owner"', 1),
    "asking": (STATUS_OF_TASK, '"/status/asking"', 2),
    "ledger": (STATUS_OF_TASK, '"/status/sandbox"', 1),
    "results": ("/agentturns/[^/]+/status", '"/status/results"', 2),
    "conclude": (STATUS_OF_TASK, '"Succeeded"', 1),
}
"""The writes that matter: path, body, and the how manieth of a task's."""
WATCHED = ("/agenttasks", "/pods")
EVENT = 3
"""Which event of each watch is spoiled."""
IN_FRONT_OF_SANDBOX = (("PUT", "/v1/epoch"), ("PUT", "/v1/calls/.*/2/0"), ("GET", "/v1/diff"))
SECONDS = 3.0
"""How long hangs and delays take."""
RESTARTS_A_FAULT = 1
AWAY_S = (3.0, 25.0)
"""How long the API server is away: less and more than the Lease holds."""
CODES = (429, 500, 503)
"""What an overloaded or broken sandbox server might say."""


@dataclass(slots=True)
class Kept:
    """Starts an operator again whenever it ends by itself, as a kubelet does. Use as `async with`."""

    operator: OperatorProcess
    restarts: int = 0
    _work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.operator.start()
        self._work = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._work is not None
        self._work.cancel()
        with suppress(asyncio.CancelledError):
            await self._work
        await self.operator.kill()

    async def _keep(self) -> None:
        while True:
            assert self.operator.process is not None
            await self.operator.process.wait()
            self.restarts += 1
            await self.operator.launch()


@dataclass(slots=True)
class Wires:
    """A lane whose operator reaches nothing but through proxies."""

    lane: Lane
    api: ApiProxy
    sandboxes: SandboxProxy
    kept: Kept

    async def api_act(self, act: Act) -> Row:
        """One act on each of the writes that matter."""
        rules = [self.api.add(rule) for rule in rules_of(act)]
        (task,) = await self.lane.begin("plain")
        await self.lane.ended([task], PATIENCE_S)
        missed = [f"{rule.path} {rule.body}" for rule in rules if not rule.struck]
        return await self._row(f"API server: {act}", len(rules), [task], missed)

    async def watch_act(self, act: WatchAct) -> Row:
        """One act on the watch of tasks and on that of pods, while three tasks run."""
        event = '"MODIFIED"' if act is WatchAct.DROP else ""  # a new task must be told of
        rules = [
            self.api.add_watch(WatchRule(act, path, event, nth=EVENT, seconds=SECONDS))
            for path in WATCHED
        ]
        tasks = await self.lane.begin("busy", 3)
        await self.lane.ended(tasks, PATIENCE_S)
        missed = [rule.path for rule in rules if not rule.struck]
        return await self._row(f"watch: {act}", len(rules), tasks, missed)

    async def away(self, seconds: float) -> Row:
        """An API server that refuses connections for a while, with three tasks under way."""
        tasks = await self.lane.begin("busy", 3)
        sights = self.lane.sights
        await sights.until(lambda: all(map(self.lane.epoch, tasks)), PATIENCE_S)
        await self.api.away(seconds)
        back, uids = time.monotonic(), [self.lane.uid(name) for name in tasks]
        await self.lane.ended(tasks, PATIENCE_S)
        row = await self._row(f"API server: away for {seconds:g} s", 1, tasks, [])
        resumed = filter(None, (sights.resumed(uid, back) for uid in uids))
        return replace(row, resume_s=tuple(resumed))

    async def sandbox_harm(self, harm: Harm, status: int) -> Row:
        """One harm to each of the requests that matter."""
        rules = [self.sandboxes.add(rule) for rule in harms_of(harm, status)]
        (task,) = await self.lane.begin("plain")
        await self.lane.ended([task], PATIENCE_S)
        missed = [rule.path for rule in rules if not rule.struck]
        name = f"sandbox: {_in_words(harm, status)}"
        return await self._row(name, len(rules), [task], missed)

    async def _row(self, name: str, runs: int, tasks: Sequence[str], missed: list[str]) -> Row:
        self.api.clear()
        self.sandboxes.rules.clear()
        if not all(map(self.lane.is_over, tasks)):
            await self.kept.operator.kill()  # whatever is wrong with it, the next row begins anew
        found, turns = await self.lane.judged(tasks)
        found += self.unfit(name, runs * RESTARTS_A_FAULT, missed)
        await self.lane.delete(*tasks)
        return Row("L2", name, runs, found, turns=turns)

    def unfit(self, name: str, restarts: int, missed: Sequence[str] = ()) -> Findings:
        """What was meant to happen and did not, and an operator that ended too often."""
        told = [f"[{name}] nothing was done to {what}" for what in missed]
        if self.kept.restarts > restarts:
            told.append(f"[{name}] the operator ended {self.kept.restarts} times")
        self.kept.restarts = 0
        return Findings(stuck=len(told), remarks=tuple(told))


def rules_of(act: Act) -> Iterator[Rule]:
    """An act on each of the writes that matter, as far as a real API server could do that."""
    for path, body, nth in PATCHED.values():
        yield Rule(act, "PATCH", path, body, nth, seconds=_seconds(act))
    if act is Act.INVALID:
        return  # of a create that would mean that the object is wrong, for ever
    for path, body, nth in CREATED.values():
        yield Rule(act, "POST", path, body, nth, seconds=_seconds(act))


def _seconds(act: Act) -> float:
    return 1.0 if act is Act.BUSY else SECONDS


def harms_of(harm: Harm, status: int) -> Iterator[sandboxproxy.Rule]:
    """A harm to each of the requests that matter."""
    cuts = harm in (Harm.DROP_AFTER_COMMIT, Harm.RESET, Harm.HANG)
    for method, path in IN_FRONT_OF_SANDBOX:
        yield sandboxproxy.Rule(
            harm, method, path, times=2 if cuts else 1, seconds=SECONDS, status=status
        )


def _in_words(harm: Harm, status: int) -> str:
    return f"status {status}" if harm is Harm.STATUS else harm.replace("-", " ")


@asynccontextmanager
async def wires(here: Stage, name: str) -> AsyncIterator[Wires]:
    """A lane with proxies, and an operator that is kept running."""
    logs = here.settings.logs
    async with (
        SandboxProxy() as sandboxes,
        ProcessNode(here.settings.cluster, logs / "sandboxes", front=sandboxes.front) as node,
        ApiProxy(here.upstream, logs / name) as api,
        lane(here, name, kubeconfig=str(api.kubeconfig), node=node) as place,
        Kept(place.operator) as kept,
    ):
        yield Wires(place, api, sandboxes, kept)


async def run(here: Stage, tell: Tell) -> list[Row]:
    """All rows whose name is wanted, one after another."""
    wanted = [(name, play) for name, play in _plays() if here.settings.only in name]
    rows: list[Row] = []
    if not wanted:
        return rows
    async with wires(here, "wires") as place:
        for name, play in wanted:
            row = await _played(place, name, play)
            rows.append(row)
            if row.findings.broken:
                tell(broken(row, here.settings))
    return rows


async def _played(place: Wires, name: str, play: Callable[[Wires], Awaitable[Row]]) -> Row:
    """Play it. What could not be done is told, and stops no other row."""
    try:
        return await play(place)
    except (ApiError, ApiUnreachable, AssertionError, TimeoutError, OSError, KeyError) as error:
        remark = f"it could not be run: {error!r}\n{place.lane.operator.tail(5)}"
        return Row("L2", name, 1, Findings(stuck=1, remarks=(remark,)))


def _plays() -> Iterator[tuple[str, Callable[[Wires], Awaitable[Row]]]]:
    """All rows, by name."""
    for act in Act:
        yield f"API server: {act}", partial(Wires.api_act, act=act)
    for seconds in AWAY_S:
        yield f"API server: away for {seconds:g} s", partial(Wires.away, seconds=seconds)
    for watch_act in WatchAct:
        yield f"watch: {watch_act}", partial(Wires.watch_act, act=watch_act)
    for harm in Harm:
        for status in CODES if harm is Harm.STATUS else (0,):
            yield (
                f"sandbox: {_in_words(harm, status)}",
                partial(Wires.sandbox_harm, harm=harm, status=status),
            )
