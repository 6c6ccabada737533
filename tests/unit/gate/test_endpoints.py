"""What is known of ModelEndpoints: limits for the gate, looks, status, metrics; in virtual time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, cast

import kopf
import pytest
from prometheus_client import REGISTRY
from ratchet.api import names
from ratchet.core.admission import Load
from ratchet.core.conditions import EndpointReason
from ratchet.core.config import ModelConfig
from ratchet.core.facts import Answered
from ratchet.core.replies import FailureKind, Usage
from ratchet.edges import kube
from ratchet.edges.kube import ApiError, ApiUnreachable
from ratchet.edges.probing import Probe, Verdict
from ratchet.fakes.clock import BEGIN, LoopClock
from ratchet.shell.endpoints import SERVING, Endpoints
from ratchet.shell.gate import ModelGate

from tests.unit.gate.places import GOOD, Comer, comes, steps
from tests.unit.gate.test_gate import virtual
from tests.unit.gate.tickets import ENDPOINT, failure, ticket

PATH = kube.ours(names.ENDPOINT_PLURAL, ENDPOINT.namespace, ENDPOINT.name)
UNREACHABLE = Verdict(False, EndpointReason.UNREACHABLE, "It does not answer.")
SPEC = {
    "url": "http://models/v1",
    "model": "large",
    "engine": "SGLang",
    "capacity": {"requests": 2},
}


def body(generation: int = 1, uid: str = "uid-00001", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.ENDPOINT_KIND,
        "metadata": {
            "name": ENDPOINT.name, "namespace": ENDPOINT.namespace, "uid": uid,
            "generation": generation,
        },
        "spec": {**SPEC, **spec},
        "status": {"observedGeneration": -1},
    }  # fmt: skip


@dataclass
class Cluster:
    """An API server with at most one endpoint."""

    stored: dict[str, Any] | None = None
    away: bool = False
    reads: int = 0
    writes: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    async def request(
        self, method: str, path: str, body: Any = None, **more: Any
    ) -> dict[str, Any]:
        if self.away:
            raise ApiUnreachable("away")
        if self.stored is None:
            raise ApiError(404, "NotFound", "no such endpoint")
        if method == "GET":
            assert path == PATH
            self.reads += 1
            return self.stored
        assert (method, path) == ("PATCH", f"{PATH}/status")
        assert more == {"content_type": kube.MERGE_PATCH}
        if body["metadata"]["uid"] != self.stored["metadata"]["uid"]:
            raise ApiError(409, "Conflict", "another uid")
        self.writes.append((asyncio.get_running_loop().time(), body["status"]))
        merged = {**self.stored["status"], **body["status"]}
        status = {name: value for name, value in merged.items() if value is not None}
        self.stored = {**self.stored, "status": status}
        return self.stored

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason."""
        assert self.stored is not None
        found = {each["type"]: each for each in self.stored["status"].get("conditions", ())}
        return found[kind]["status"], found[kind]["reason"]


@dataclass
class Looks:
    """A prober whose findings a test sets."""

    probe: Probe = field(default_factory=lambda: Probe(SERVING, 1))
    found: Load | None = None
    asked: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    async def models(self, config: ModelConfig, namespace: str) -> Probe:
        assert namespace == ENDPOINT.namespace and config.endpoint == ENDPOINT.name
        self.asked.append(asyncio.get_running_loop().time())
        return self.probe

    async def load(self, config: ModelConfig, namespace: str) -> Load | None:
        self.loads.append(asyncio.get_running_loop().time())
        return self.found


@dataclass
class Lease:
    held: bool = True


class Scene:
    """A gate and its endpoints, running."""

    def __init__(self, stored: dict[str, Any] | None = None) -> None:
        self.cluster, self.looks, self.lease = Cluster(stored), Looks(), Lease()
        self.gate = ModelGate(LoopClock())
        self.endpoints = Endpoints(self.cluster, self.looks, self.gate, LoopClock(), self.lease)
        self.gate.listen(self.endpoints)

    async def __aenter__(self) -> Scene:
        self._run = asyncio.create_task(self.endpoints.run())
        if self.cluster.stored is not None:
            self.endpoints.seen(None, self.cluster.stored)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)
        await self.endpoints.close()

    def edit(self, **spec: Any) -> None:
        """Somebody changes the spec, and the watch tells."""
        assert self.cluster.stored is not None
        generation = self.cluster.stored["metadata"]["generation"] + 1
        changed = body(generation, **spec)
        self.cluster.stored = {**changed, "status": self.cluster.stored["status"]}
        self.endpoints.seen("MODIFIED", self.cluster.stored)

    async def comes(self, number: int) -> Comer:
        comer = comes(self.gate, ticket(number))
        await steps()
        return comer


# --- what the gate is told -------------------------------------------------------------------------


@virtual
async def test_the_capacity_of_the_object_is_the_limit_of_the_gate() -> None:
    async with Scene(body()) as scene:
        comers = [await scene.comes(number) for number in range(4)]
        assert [each.inside for each in comers] == [True, True, False, False]
        scene.edit(capacity={"requests": 3})
        await steps()
        assert [each.inside for each in comers] == [True, True, True, False]


@virtual
async def test_an_endpoint_that_the_watch_has_not_told_of_is_read_when_a_task_wants_it() -> None:
    async with Scene() as scene:
        scene.cluster.stored = body()
        comers = [await scene.comes(number) for number in range(3)]
        await steps()
        assert [each.inside for each in comers] == [True, True, False]
        assert scene.cluster.reads == 1


@virtual
async def test_tasks_wait_while_the_api_server_cannot_say_what_the_endpoint_takes() -> None:
    async with Scene() as scene:
        scene.cluster.stored, scene.cluster.away = body(), True
        comer = await scene.comes(1)
        await asyncio.sleep(20)
        assert comer.got is None
        scene.cluster.away = False
        await asyncio.sleep(2)
        assert comer.inside


@virtual
async def test_a_task_goes_on_without_limits_where_its_endpoint_was_deleted() -> None:
    async with Scene() as scene:
        comer = await scene.comes(1)
        await steps()
        assert comer.inside


@virtual
async def test_sglang_is_asked_at_once_how_much_it_takes_where_the_object_does_not_say() -> None:
    async with Scene(body(capacity=None)) as scene:
        scene.looks.found = Load(0, 0, 0, 100_000, 3)
        comers = [await scene.comes(number) for number in range(5)]
        await steps()
        assert [each.inside for each in comers] == [True, True, True, False, False]


@virtual
async def test_sglang_is_asked_for_its_load_every_2_s_while_requests_run_and_not_else() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(10)
        assert scene.looks.loads == []
        comer = await scene.comes(1)
        await asyncio.sleep(10)
        asked = scene.looks.loads
        assert len(asked) == 5 and all(b - a == 2 for a, b in pairwise(asked))
        comer.permit.done(GOOD)
        await asyncio.sleep(10)
        assert len(scene.looks.loads) == 5


@virtual
async def test_other_engines_are_never_asked_for_their_load() -> None:
    async with Scene(body(engine="OpenAI")) as scene:
        await scene.comes(1)
        await asyncio.sleep(10)
        assert scene.looks.loads == []


async def breaks(scene: Scene, kind: FailureKind = FailureKind.RETRY) -> None:
    """Requests fail until the breaker is open."""
    for number in range(5 if kind is FailureKind.RETRY else 1):
        comer = await scene.comes(number)
        comer.permit.done(failure(kind))
    assert (await scene.comes(99)).away


@virtual
async def test_a_change_of_the_object_closes_the_breaker() -> None:
    async with Scene(body()) as scene:
        await breaks(scene)
        scene.edit(url="http://elsewhere/v1")
        assert (await scene.comes(100)).inside


@virtual
async def test_a_status_that_changes_does_not_close_the_breaker() -> None:
    async with Scene(body()) as scene:
        await breaks(scene)
        scene.endpoints.seen("MODIFIED", body())
        assert (await scene.comes(100)).away


@virtual
async def test_another_key_in_the_secret_closes_the_breaker() -> None:
    async with Scene(body(breaker={"openSeconds": 600})) as scene:
        await asyncio.sleep(5)
        await breaks(scene, FailureKind.CONFIGURATION)
        await asyncio.sleep(31)
        assert (await scene.comes(100)).away
        scene.looks.probe = Probe(SERVING, access=2)
        await asyncio.sleep(31)
        assert (await scene.comes(101)).inside


@virtual
async def test_a_secret_that_is_there_at_last_closes_the_breaker() -> None:
    async with Scene(body(breaker={"openSeconds": 600})) as scene:
        scene.looks.probe = Probe(UNREACHABLE, None)
        await breaks(scene, FailureKind.CONFIGURATION)
        await asyncio.sleep(31)
        assert (await scene.comes(100)).away
        scene.looks.probe = Probe(SERVING, 1)
        await asyncio.sleep(31)
        assert (await scene.comes(101)).inside


@virtual
async def test_an_outage_of_the_api_server_is_no_change_of_a_key() -> None:
    async with Scene(body(breaker={"openSeconds": 600})) as scene:
        await asyncio.sleep(5)
        await breaks(scene)
        for probe in (Probe(None), Probe(SERVING, 1)):
            scene.looks.probe = probe
            await asyncio.sleep(31)
        assert (await scene.comes(100)).away


@virtual
async def test_a_refusal_of_a_request_is_looked_into_at_once() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(5)
        (await scene.comes(1)).permit.done(GOOD)
        (await scene.comes(2)).permit.done(failure(FailureKind.CONFIGURATION))
        await asyncio.sleep(2)
        assert len(scene.looks.asked) == 2


@virtual
async def test_an_event_that_comes_late_takes_nothing_back() -> None:
    async with Scene(body(generation=7)) as scene:
        scene.endpoints.seen("MODIFIED", body(generation=3, capacity={"requests": 1}))
        comers = [await scene.comes(number) for number in range(2)]
        assert [each.inside for each in comers] == [True, True]


# --- looks and status ------------------------------------------------------------------------------


@virtual
async def test_a_new_endpoint_is_asked_and_its_status_says_what_was_found() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(3)
        assert scene.cluster.condition("Ready") == ("True", "Serving")
        assert scene.cluster.condition("Saturated") == ("False", "PlacesFree")
        assert scene.cluster.stored is not None
        status = scene.cluster.stored["status"]
        assert (status["observedGeneration"], status["running"], status["queued"]) == (1, 0, 0)


@virtual
async def test_idle_endpoints_are_asked_every_30_s_and_nothing_is_written() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(600)
        assert len(scene.cluster.writes) == 1
        assert 19 <= len(scene.looks.asked) <= 21


@virtual
async def test_an_endpoint_that_answers_requests_is_not_asked() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(5)
        for number in range(30):
            (await scene.comes(number)).permit.done(GOOD)
            await asyncio.sleep(10)
        assert len(scene.looks.asked) == 1


@virtual
async def test_a_changed_endpoint_is_asked_at_once() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(5)
        scene.looks.probe = Probe(UNREACHABLE, 1)
        scene.edit(url="http://elsewhere/v1")
        await asyncio.sleep(6)
        assert scene.cluster.condition("Ready") == ("False", "Unreachable")


@virtual
async def test_an_object_that_cannot_be_used_says_why_and_is_not_asked() -> None:
    async with Scene(body(timeouts={"firstByteSeconds": 700, "totalSeconds": 600})) as scene:
        await asyncio.sleep(3)
        assert scene.cluster.condition("Ready") == ("False", "ConfigInvalid")
        assert scene.looks.asked == []


@virtual
async def test_an_object_of_another_version_says_so() -> None:
    async with Scene(body(url=3)) as scene:
        await asyncio.sleep(3)
        assert scene.cluster.condition("Ready") == ("False", "ConfigInvalid")


@virtual
async def test_an_open_breaker_is_shown_with_what_failed() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(5)
        await breaks(scene)
        await asyncio.sleep(6)
        assert scene.cluster.condition("Ready") == ("False", "BreakerOpen")
        assert scene.cluster.stored is not None
        assert scene.cluster.stored["status"]["lastError"] == {
            "message": "It failed: Retry.",
            "time": (BEGIN + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


@virtual
async def test_a_success_shows_an_endpoint_ready_but_not_one_that_lacks_the_model() -> None:
    lacking = Verdict(False, EndpointReason.MODEL_NOT_SERVED, "It lacks the model.")
    for verdict, shown in ((UNREACHABLE, "True"), (lacking, "False")):
        async with Scene(body()) as scene:
            scene.looks.probe = Probe(verdict, 1)
            await asyncio.sleep(3)
            assert scene.cluster.condition("Ready")[0] == "False"
            (await scene.comes(1)).permit.done(GOOD)
            await asyncio.sleep(10)
            assert scene.cluster.condition("Ready")[0] == shown


@virtual
async def test_what_a_look_cannot_tell_takes_nothing_back() -> None:
    async with Scene(body()) as scene:
        scene.looks.probe = Probe(Verdict(None, EndpointReason.NOT_ASKED, "No list."), 1)
        await asyncio.sleep(3)
        assert scene.cluster.condition("Ready")[0] == "Unknown"
        (await scene.comes(1)).permit.done(GOOD)
        await asyncio.sleep(100)
        assert scene.cluster.condition("Ready")[0] == "True"
        scene.looks.probe = Probe(None)
        await asyncio.sleep(100)
        assert scene.cluster.condition("Ready")[0] == "True"


@virtual
async def test_requests_that_wait_show_as_saturated_and_for_some_seconds_after() -> None:
    async with Scene(body()) as scene:
        comers = [await scene.comes(number) for number in range(3)]
        await asyncio.sleep(6)
        assert scene.cluster.condition("Saturated") == ("True", "PlacesTaken")
        assert scene.cluster.stored is not None
        assert (
            scene.cluster.stored["status"]["running"],
            scene.cluster.stored["status"]["queued"],
        ) == (2, 1)
        for each in comers:
            await steps()
            each.permit.done(GOOD)
        await asyncio.sleep(8)
        assert scene.cluster.condition("Saturated")[0] == "True"
        await asyncio.sleep(10)
        assert scene.cluster.condition("Saturated")[0] == "False"


@virtual
async def test_the_status_of_a_busy_endpoint_is_written_every_5_s_at_most() -> None:
    async with Scene(body()) as scene:
        for number in range(100):
            comer = await scene.comes(number)
            await asyncio.sleep(1)
            comer.permit.done(Answered(number / 10, Usage(100, number, 5)))
        times = [at for at, _ in scene.cluster.writes]
        assert 10 <= len(times) <= 21
        assert all(b - a >= 5 for a, b in pairwise(times))


@virtual
async def test_a_process_without_the_lease_asks_and_writes_nothing_until_it_gets_it() -> None:
    scene = Scene(body())
    scene.lease.held = False
    async with scene:
        await asyncio.sleep(100)
        assert scene.cluster.writes == [] and scene.looks.asked == []
        assert (await scene.comes(1)).inside, "the terms are known all the same"
        scene.lease.held = True
        await asyncio.sleep(3)
        assert scene.cluster.condition("Ready")[0] == "True"


@virtual
async def test_a_status_that_cannot_be_written_is_written_later() -> None:
    async with Scene(body()) as scene:
        scene.cluster.away = True
        await asyncio.sleep(20)
        scene.cluster.away = False
        await asyncio.sleep(10)
        assert scene.cluster.condition("Ready")[0] == "True"


@virtual
async def test_the_status_of_an_endpoint_goes_to_no_other_of_the_same_name() -> None:
    async with Scene(body()) as scene:
        scene.cluster.stored = body(uid="uid-00002")
        await asyncio.sleep(2)
        assert scene.cluster.writes == []
        await asyncio.sleep(70)
        assert scene.cluster.condition("Ready")[0] == "True"


@virtual
async def test_a_change_that_the_watch_did_not_tell_is_found_within_a_minute() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(5)
        scene.cluster.stored = body(generation=2, capacity={"requests": 1})
        await asyncio.sleep(61)
        comers = [await scene.comes(number) for number in range(2)]
        assert [each.inside for each in comers] == [True, False]


@virtual
async def test_a_deleted_endpoint_is_asked_no_more() -> None:
    async with Scene(body()) as scene:
        await asyncio.sleep(5)
        scene.cluster.stored = None
        scene.endpoints.seen("DELETED", body())
        await asyncio.sleep(100)
        assert len(scene.looks.asked) == 1


def test_a_change_of_ready_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @virtual
    async def outage() -> None:
        async with Scene(body()) as scene:
            await asyncio.sleep(100)
            scene.looks.probe = Probe(UNREACHABLE, 1)
            await asyncio.sleep(1000)
            scene.looks.probe = Probe(SERVING, 1)
            await asyncio.sleep(100)

    with caplog.at_level(logging.INFO, "ratchet.endpoints"):
        outage()
    assert [record.message for record in caplog.records] == [
        "EndpointReady", "EndpointNotReady", "EndpointReady",
    ]  # fmt: skip


# --- metrics, and the watch ------------------------------------------------------------------------


def sample(name: str, **labels: str) -> float | None:
    where = {"namespace": ENDPOINT.namespace, "endpoint": ENDPOINT.name}
    return REGISTRY.get_sample_value(f"ratchet_endpoint_{name}", {**where, **labels})


@virtual
async def test_metrics_show_what_happens_at_an_endpoint_and_go_with_it() -> None:
    async with Scene(body()) as scene:
        comers = [await scene.comes(number) for number in range(3)]
        await asyncio.sleep(2)
        assert (sample("running"), sample("queued"), sample("breaker_state")) == (2, 1, 0)
        comers[0].permit.done(Answered(3.0, Usage(100, 40, 5)))
        comers[1].permit.done(failure(FailureKind.WAIT))
        await asyncio.sleep(2)
        comers[2].permit.done(None)
        assert sample("requests_total", outcome="Answered") == 1
        assert sample("requests_total", outcome="Wait") == 1
        assert sample("requests_total", outcome="Withdrawn") == 1
        assert (sample("prompt_tokens_total"), sample("cached_tokens_total")) == (100, 40)
        assert sample("latency_seconds_sum") == 3.0
        scene.endpoints.seen("DELETED", body())
        assert sample("running") is None and sample("requests_total", outcome="Wait") is None


@virtual
async def test_an_event_of_kopf_is_understood() -> None:
    async with Scene() as scene:
        scene.cluster.stored = body()
        scene.endpoints.seen("ADDED", dict(kopf.Body(cast(Any, body()))))
        comers = [await scene.comes(number) for number in range(3)]
        assert [each.inside for each in comers] == [True, True, False]
        assert scene.cluster.reads == 0
