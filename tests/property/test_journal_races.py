"""Two owners of one task at the real journal, one request at a time: orders that once went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ratchet.core.records import Call, Outcome, Reply, Result, Turn, Verdict
from ratchet.edges import kube, taskstatus
from ratchet.edges.claim import KubeJournals
from ratchet.edges.journal import KubeJournal
from ratchet.edges.kube import JSON, TIMEOUT_S, Params
from ratchet.fakes.clock import BEGIN
from ratchet.ports import Claim, OwnershipLost

from tests.property.apiserver import ApiServer
from tests.property.cluster import TASK
from tests.property.plan import Plan
from tests.property.scenario import make_cluster

Act = Callable[[], Awaitable[object]]
CALL = Call(0, "abcdefghi", "bash", '{"command":"make"}')


class Line:
    """A connection on which something else may happen before the n-th request (kube.Api)."""

    def __init__(self, api: ApiServer, before: dict[int, Act] | None = None) -> None:
        self._api = api
        self._before = before or {}
        self._sent = 0

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        self._sent += 1
        if self._sent in self._before:
            await self._before[self._sent]()
        return self._api.request(method, path, body, params)


@pytest.fixture
def api() -> ApiServer:
    return make_cluster(Plan(seed=1)).api


async def claimed(line: Line, holder: str) -> tuple[Claim, KubeJournal]:
    found = await KubeJournals(line, lambda: BEGIN).claim(TASK, holder, BEGIN)
    assert found is not None
    return found


def opening(claim: Claim, epoch: int) -> Turn:
    """The first turn, as an owner of this epoch records it."""
    (start,) = claim.records[:1]
    reply = Reply(Verdict.CALLS, text=f"of epoch {epoch}", calls=(CALL,))
    previous = getattr(start, "hash", "")
    return Turn(1, epoch, 1, "ledger", previous, "sha256:" + "a" * 64, reply)


def result(content: str) -> tuple[Result, ...]:
    return (Result(0, f"{TASK.uid}/1/0", Outcome.OK, content),)


async def test_a_stale_owner_goes_on_with_nothing_that_it_finds(api: ApiServer) -> None:
    claim, first = await claimed(Line(api), "one")
    stored, _ = await first.append(opening(claim, 1))
    _, stale = await claimed(Line(api), "two")
    await claimed(Line(api), "three")
    with pytest.raises(OwnershipLost):
        await stale.append(stored)


async def test_an_owner_that_takes_a_turn_over_shuts_the_one_out_that_made_it(
    api: ApiServer,
) -> None:
    claim, stale = await claimed(Line(api), "one")
    _, owner = await claimed(Line(api), "two")
    late, _ = await stale.append(opening(claim, 1))
    assert await owner.append(opening(claim, 2)) == (late, False)
    assert isinstance(late, Turn)
    with pytest.raises(OwnershipLost):
        await stale.record_results(late, result("of the stale owner"))
    assert (await owner.record_results(late, result("of the owner"))).complete


@pytest.mark.parametrize("moment", range(1, 12))
async def test_a_claim_says_nothing_bad_of_a_task_that_another_one_claims_meanwhile(
    api: ApiServer, moment: int
) -> None:
    async def other() -> None:
        await claimed(Line(api), "other")

    line = Line(api, {moment: other})
    await KubeJournals(line, lambda: BEGIN).claim(TASK, "one", BEGIN)
    status = taskstatus.status(api.objects[kube.task(TASK.namespace, TASK.name)])
    assert status.get("phase") != "Failed", status.get("message")
