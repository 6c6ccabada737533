"""Commands may have so many processes under gVisor, and no limit of ours elsewhere."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator

import pytest
from ratchet_sandbox.runner import crowd


@pytest.fixture
def child() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


def _limit(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_NPROC)


def test_a_shell_under_gvisor_is_limited_for_good(child: int) -> None:
    crowd.bound(child, "4.19.0-gvisor")
    assert _limit(child) == (crowd.PROCESSES, crowd.PROCESSES)


def test_a_shell_on_another_kernel_is_left_alone(child: int) -> None:
    crowd.bound(child, "6.1.0-27-amd64")
    assert _limit(child) == _limit(os.getpid())


def test_a_shell_that_has_ended_needs_no_limit() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    crowd.bound(process.pid, "4.19.0-gvisor")
