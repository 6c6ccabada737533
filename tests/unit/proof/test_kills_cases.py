"""L2's plan: no failpoint is left out."""

from __future__ import annotations

import random

import pytest
from ratchet.failpoints import Point
from ratchet_sandbox import failpoints as sandbox

from tests.proof import kills_points, kills_sandbox


@pytest.mark.parametrize("point", Point)
def test_the_operator_is_killed_at_each_of_its_failpoints(point: Point) -> None:
    killed = {
        failpoint.partition("=")[0]
        for case in kills_points.cases(random.Random(1))
        for operator in case.operators
        for failpoint in operator.split(",")
        if "=kill" in failpoint
    }
    assert point in killed


@pytest.mark.parametrize("point", sandbox.Point)
def test_server_and_runner_are_killed_and_stopped_at_each_of_theirs(point: sandbox.Point) -> None:
    tried = {
        failpoint.partition("@")[0]
        for case in kills_sandbox.cases()
        for failpoint in (case.server, case.runner)
    }
    assert {f"{point}=kill", f"{point}=stop"} <= tried
