"""Probes, the model list, the load and the metrics of an idle server."""

from __future__ import annotations

import re

import pytest

from inference.contract.kit import Json, Server, holds, needs, recorded, recording

GAUGES = ["num_running_reqs", "num_queue_reqs", "token_usage", "num_used_tokens"]
GAUGES += ["cache_hit_rate", "max_total_num_tokens"]


@recorded("endpoints/ready")
async def test_ready_answers_at_once_without_a_body(server: Server) -> None:
    answer = await server.get("/ready")
    assert (answer.status, answer.text) == (200, "")
    assert answer.took_s < 0.5


@recorded("endpoints/health_idle", "endpoints/health_generate_idle")
@pytest.mark.parametrize("path", ["/health", "/health_generate"])
async def test_health_takes_a_second(path: str, server: Server) -> None:
    answer = await server.get(path)
    assert (answer.status, answer.text) == (200, "")
    # So a probe with the kubelet's default timeout of 1 s can never pass.
    assert 1.0 <= answer.took_s < 3


@recorded("endpoints/v1_models")
async def test_the_model_list_names_the_model_and_its_context(server: Server) -> None:
    answer = await server.get("/v1/models")
    assert holds(answer.json, recording("endpoints/v1_models")["response"]["body"])
    assert answer.json["data"][0]["max_model_len"] > 0


@recorded("endpoints/v1_models_unknown")
async def test_an_unknown_model_is_a_404_of_the_model_list(server: Server) -> None:
    wanted = recording("endpoints/v1_models_unknown")
    answer = await server.send(wanted["request"])
    assert answer.status == wanted["response"]["status"] == 404
    assert answer.json["error"]["code"] == "model_not_found"


@recorded("endpoints/v1_loads_idle", "endpoints/v1_loads_core_idle")
@pytest.mark.parametrize("name", ["endpoints/v1_loads_idle", "endpoints/v1_loads_core_idle"])
async def test_the_load_has_the_recorded_fields(name: str, server: Server) -> None:
    wanted = recording(name)
    answer = await server.send(wanted["request"])
    assert answer.status == 200
    assert holds(answer.json, wanted["response"]["body"])


@recorded("cancel/metrics_after_aborts")
@needs(enable_metrics=True)
@pytest.mark.parametrize("name", GAUGES)
async def test_the_gauges_of_the_load_have_their_recorded_labels(name: str, server: Server) -> None:
    theirs = recording("cancel/metrics_after_aborts")["response"]["body_text"]
    answer = await server.get("/metrics")
    assert labels(answer.text, f"sglang:{name}") == labels(theirs, f"sglang:{name}")


def labels(text: str, metric: str) -> tuple[str, set[str]]:
    """Type and label names of a metric."""
    [kind] = re.findall(rf"^# TYPE {metric} (\w+)$", text, re.M)
    sample = re.findall(rf"^{metric}\{{(.*)\}} ", text, re.M)[0]
    return kind, set(re.findall(r'(\w+)="', sample))


@recorded("endpoints/unknown_path", "endpoints/chat_get")
@pytest.mark.parametrize("name", ["endpoints/unknown_path", "endpoints/chat_get"])
async def test_a_wrong_path_or_method_is_refused_as_recorded(name: str, server: Server) -> None:
    wanted: Json = recording(name)
    answer = await server.send(wanted["request"])
    assert answer.status == wanted["response"]["status"]
    assert answer.json == wanted["response"]["body"]
