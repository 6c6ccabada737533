"""What counts as a write, out of text as the API server prints it."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.writes import accepted, between, per_turn, rates


def counted(
    value: int,
    verb: str,
    resource: str,
    subresource: str = "",
    *,
    code: int = 200,
    dry_run: str = "",
    version: str = "v1alpha1",
) -> str:
    labels = {
        "code": code,
        "component": "apiserver",
        "dry_run": dry_run,
        "group": "",
        "resource": resource,
        "scope": "resource",
        "subresource": subresource,
        "verb": verb,
        "version": version,
    }
    inside = ",".join(f'{name}="{text}"' for name, text in labels.items())
    return f"apiserver_request_total{{{inside}}} {value}"


METRICS = "\n".join(
    (
        "# HELP apiserver_request_total [STABLE] Counter of apiserver requests.",
        "# TYPE apiserver_request_total counter",
        counted(12, "POST", "agentturns", code=201),
        counted(3, "POST", "agentturns", code=409),
        counted(5, "POST", "agentturns", code=201, dry_run="All"),
        counted(30, "PATCH", "agenttasks", "status"),
        counted(99, "GET", "agenttasks"),
        counted(77, "PUT", "leases"),
        counted(4, "PATCH", "pods", "status"),
        counted(2, "PATCH", "pods", "status", version="v1beta1"),
        'apiserver_request_duration_seconds_count{resource="pods",verb="POST"} 9',
        "",
    )
)


def test_accepted_writes_to_resources_that_a_task_may_touch_are_counted() -> None:
    assert accepted(METRICS) == {
        ("agentturns", "POST"): 12,
        ("agenttasks/status", "PATCH"): 30,
        ("pods/status", "PATCH"): 6,
    }


def test_metrics_without_the_counter_count_nothing() -> None:
    assert accepted("up 1\n") == {}


def test_what_an_idle_cluster_writes_in_the_time_is_taken_off() -> None:
    before = accepted(METRICS)
    after = before + between(before, before)
    after["agentturns", "POST"] += 20
    after["pods/status", "PATCH"] += 6
    idle = rates(Counter({("pods/status", "PATCH"): 4}), 8.0)
    assert per_turn(between(before, after), idle, 8.0, 10) == {
        ("agentturns", "POST"): 2.0,
        ("pods/status", "PATCH"): pytest.approx(0.2),
    }


def test_fewer_writes_than_the_idle_cluster_makes_are_none() -> None:
    events = ("events", "POST")
    assert per_turn(Counter({events: 1}), {events: 5.0}, 1.0, 1) == {events: 0.0}
