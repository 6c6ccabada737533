"""The names that later versions are compared by, the targets, and the page."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from benchmarks.figures import Figures, RunFigures
from benchmarks.floor import Floor
from benchmarks.load.figures import LoadFigures
from benchmarks.load.report import fields as load_fields
from benchmarks.report import BEGIN, END, as_json, table, targets
from benchmarks.sandbox.figures import Memory, Round, SandboxFigures, Start
from benchmarks.scripts import Run
from benchmarks.trace import Turn
from benchmarks.writes import LEASE
from tools.circumstances import Circumstances, with_table

HERE = Circumstances("c0ffee" * 6, "2 cores, 24 GiB", date(2026, 11, 22), 0.3)
TURN = Turn(wall=24.0, own=4.0, commit=15.0, tool=5.0, model=3.0, cpu=9.0)
CREATE = ("agentturns", "POST")
SANDBOX = SandboxFigures(
    starts=(Start(1300.0, 1000.0, 650.0),),
    rounds=(Round(noop=6.0, bash=16.0, commits=1.0, https=1.0, bare_bash=2.0),),
    memory=Memory(at_rest=50.0, after_output=60.0),
)

LOAD = LoadFigures(200, 10, 32, 2.0, 15.6, 12.0, 5.0, 150.0, 0)


def figures(*, own: float = 4.0, writes: float = 3.0, slow_writes: float = 3.4) -> Figures:
    turn = replace(TURN, own=own)
    return Figures(
        fast=RunFigures(Run("fast", 3, 0.0), [turn] * 3, {CREATE: writes, LEASE: 0.02}, 3.0),
        slow=RunFigures(Run("slow", 3, 2.0), [TURN] * 3, {CREATE: slow_writes}, 3.0),
        floor=Floor(create=4.0, tool=5.0, model=2.0, total=12.0),
        peak_mib=80.0,
        ops={"journal.append": 5.0},
        sandbox=SANDBOX,
        load=LOAD,
    )


def test_the_fields_are_those_that_later_versions_are_compared_by() -> None:
    assert as_json(figures(), HERE) == {
        "commit": HERE.commit,
        "machine": HERE.machine,
        "turn": {
            "p50_ms": 24.0,
            "p99_ms": 24.0,
            "own_p50_ms": 4.0,
            "own_p99_ms": 4.0,
            "commit_p50_ms": 15.0,
            "tool_p50_ms": 5.0,
            "model_p50_ms": 3.0,
            "floor_p50_ms": 12.0,
            "ratio_to_floor": 2.0,
            "writes_per_turn": 3.02,
            "writes_per_turn_2s_model": 3.4,
            "cpu_ms_per_turn": 9.0,
            "rss_mb": 80.0,
        },
        "sandbox": {
            "first_result_p50_ms": 1300.0,
            "same_shape_pod_p50_ms": 1000.0,
            "plain_pod_p50_ms": 650.0,
            "ratio_to_same_shape": 1.3,
            "noop_call_p50_ms": 6.0,
            "noop_ratio": 3.0,
            "bash_true_p50_ms": 16.0,
            "bash_ratio": 2.0,
            "rss_mb": 50.0,
            "rss_mb_after_1gb_output": 60.0,
        },
        "load": load_fields(LOAD),
    }


def met(found: Figures) -> list[bool]:
    return [target.met for target in targets(found)][:4]


def test_targets_are_met_up_to_their_bound() -> None:
    assert met(figures()) == [True, True, True, True]
    assert met(figures(own=6.0)) == [True, True, True, True]
    assert met(figures(own=6.1)) == [False, True, True, True]
    assert met(figures(writes=3.1, slow_writes=4.1)) == [True, True, False, False]
    slow_floor = replace(figures(), floor=Floor(4.0, 3.0, 0.5, 7.9))
    assert met(slow_floor) == [True, False, True, True]


def test_targets_of_the_sandbox_are_met_up_to_their_bound() -> None:
    def met(**changed: Any) -> list[bool]:
        found = replace(figures(), sandbox=replace(SANDBOX, **changed))
        return [target.met for target in targets(found)][4:9]

    assert met() == [True, True, True, True, True]
    assert met(starts=(Start(1310.0, 1000.0, 650.0),)) == [False, True, True, True, True]
    slow = Round(noop=6.1, bash=16.4, commits=1.0, https=1.0, bare_bash=2.0)
    assert met(rounds=(slow,)) == [True, False, False, True, True]
    assert met(memory=Memory(60.1, 80.2)) == [True, True, True, False, False]


def test_the_table_tells_of_a_missed_target_and_of_every_write() -> None:
    lines = table(figures(own=9.0), HERE).splitlines()
    assert "commit c0ffeec0ffee" in lines[0] and "2 cores" in lines[0]
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    assert "NOT MET" in rows["own time / bare create (p50)"]
    assert "NOT MET" not in rows["turn / floor (p50)"]
    assert "3.00" in rows["POST agentturns"] and "0.02" in rows["any leases"]


def test_a_write_that_is_too_rare_to_be_shown_has_no_row() -> None:
    found = figures()
    rare = replace(found.fast, writes={**found.fast.writes, ("events", "POST"): 0.004})
    assert "events" not in table(replace(found, fast=rare), HERE)


def test_the_table_doubts_writes_that_the_operator_did_not_make() -> None:
    told = table(figures(writes=3.2, slow_writes=3.4), HERE)
    assert "other writers beside the slow run" in told and "beside the fast run" not in told
    assert "other writers" not in table(figures(slow_writes=3.0), HERE)


def test_a_page_gets_its_table_and_keeps_the_rest() -> None:
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nRest.\n"
    once = with_table(page, "new", BEGIN, END)
    assert once == f"# Title\n\n{BEGIN}\nnew\n{END}\n\nRest.\n"
    assert with_table(once, "newer", BEGIN, END).count("new") == 1
    with pytest.raises(ValueError, match="needs the lines"):
        with_table("# Title\n", "new", BEGIN, END)
