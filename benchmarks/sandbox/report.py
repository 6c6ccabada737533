"""The sandbox's figures as fields, as targets and as a table."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.sandbox.figures import SandboxFigures
from benchmarks.tables import Target, header, row

START_TARGET = 1.3
"""Most times of the start of a pod of the same shape that the first result may take."""
NOOP_TARGET = 3.0
"""Most times of two bare commits and a bare HTTPS call that a no-op may take."""
BASH_TARGET = 2.0
"""Most times of a no-op and a bare `bash -c true` that a `true` may take."""
MEMORY_TARGET = 60.0
"""Most MiB of server and runner together."""
OUTPUT_TARGET = 20.0
"""Most MiB more after 1 GB of output."""


def fields(found: SandboxFigures) -> dict[str, float]:
    """The stable fields that later versions are compared by."""
    values = {
        "first_result_p50_ms": found.first_result,
        "same_shape_pod_p50_ms": found.same_shape,
        "plain_pod_p50_ms": found.plain,
        "ratio_to_same_shape": found.first_result / found.same_shape,
        "noop_call_p50_ms": found.noop,
        "noop_ratio": found.noop / found.noop_floor,
        "bash_true_p50_ms": found.bash,
        "bash_ratio": found.bash / found.bash_floor,
        "rss_mb": found.memory.at_rest,
        "rss_mb_after_1gb_output": found.memory.after_output,
    }
    return {name: round(value, 3) for name, value in values.items()}


def targets(found: SandboxFigures) -> tuple[Target, ...]:
    """The targets, each with what was found."""
    memory = found.memory
    return (
        Target(
            "first result / same shape",
            round(found.first_result / found.same_shape, 2),
            START_TARGET,
        ),
        Target("no-op / commits + HTTPS", round(found.noop / found.noop_floor, 2), NOOP_TARGET),
        Target("bash true / no-op + bash", round(found.bash / found.bash_floor, 2), BASH_TARGET),
        Target("server and runner (MiB)", round(memory.at_rest, 1), MEMORY_TARGET),
        Target(
            "more after 1 GB of output (MiB)",
            round(memory.after_output - memory.at_rest, 1),
            OUTPUT_TARGET,
        ),
    )


def table(found: SandboxFigures) -> Iterator[str]:
    """What was found, as lines of Markdown."""
    yield from header(f"sandbox, {len(found.starts)} starts", "p50 (ms)", "times ours")
    yield row("first result of a tool", f"{found.first_result:.0f}", "1.00")
    for what, ms in (("pod of the same shape", found.same_shape), ("plain pod", found.plain)):
        yield row(what, f"{ms:.0f}", f"{found.first_result / ms:.2f}")
    yield ""
    yield from header(f"calls, {len(found.rounds)} rounds", "p50 (ms)", "floor p50")
    yield row("no-op", f"{found.noop:.2f}", f"{found.noop_floor:.2f}")
    yield row("bash true", f"{found.bash:.2f}", f"{found.bash_floor:.2f}")
