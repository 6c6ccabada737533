"""Writes that the API server accepted, by its own count. Pure.

`apiserver_request_total` (Kubernetes, metrics reference) counts answered requests by verb, group,
resource, subresource and HTTP code, over all namespaces and clients since the server started.
"""

from __future__ import annotations

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

METRIC = "apiserver_request_total"
VERBS = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
COUNTED = frozenset(
    {
        "agenttasks",
        "agentturns",
        "events",
        "pods",
        "secrets",
        "configmaps",
        "networkpolicies",
        "persistentvolumeclaims",
    }
)
"""Resources that a task may have written. Not leases: nodes and controllers renew theirs, too."""

Write = tuple[str, str]
"""Resource (with `/<subresource>` where there is one) and verb."""
LEASE: Write = ("leases", "any")
"""The operator's Lease. Its writes are counted by a watch: the metrics cannot tell namespaces."""


def accepted(metrics: str) -> Counter[Write]:
    """Accepted writes to the counted resources, out of the text of `/metrics`."""
    lines = (line for line in metrics.splitlines() if line.startswith(METRIC + "{"))
    found: Counter[Write] = Counter()
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            labels = sample.labels
            if _counts(labels):
                name = "/".join(filter(None, (labels["resource"], labels.get("subresource"))))
                found[name, labels["verb"]] += int(sample.value)
    return found


def _counts(labels: dict[str, str]) -> bool:
    return (
        labels.get("verb") in VERBS
        and labels.get("resource") in COUNTED
        and labels.get("code", "").startswith("2")
        and not labels.get("dry_run")
    )


def between(before: Counter[Write], after: Counter[Write]) -> Counter[Write]:
    """What was written from one reading to the next."""
    return Counter(
        {key: count - before[key] for key, count in after.items() if count > before[key]}
    )


def per_turn(
    written: Counter[Write], idle_per_s: dict[Write, float], seconds: float, turns: int
) -> dict[Write, float]:
    """Writes a turn, less what the idle cluster writes in the same time."""
    rest = {key: count - idle_per_s.get(key, 0.0) * seconds for key, count in written.items()}
    return {key: max(0.0, count) / turns for key, count in sorted(rest.items())}


def rates(written: Counter[Write], seconds: float) -> dict[Write, float]:
    """Writes a second."""
    return {key: count / seconds for key, count in written.items()}
