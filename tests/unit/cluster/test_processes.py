"""A process is ended only if it is the very one that was started."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.cluster.local import processes


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def test_the_start_time_is_found_behind_a_name_with_brackets() -> None:
    fields = ["S", *(str(number) for number in range(4, 23))]
    assert processes.parse_started(f"7 (a) b) (c) {' '.join(fields)}\n") == 22


def test_a_living_process_is_identified_and_recognised() -> None:
    me = processes.identify(os.getpid())
    assert me is not None
    assert processes.alive(me)
    assert processes.load(processes.dump(me)) == me


def test_a_number_that_is_used_again_is_another_process(child: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(child.pid)
    assert identity is not None
    stranger = replace(identity, started=identity.started - 1)
    assert not processes.alive(stranger)
    processes.kill(stranger)
    assert processes.alive(identity)


def test_a_process_of_an_earlier_boot_is_gone() -> None:
    me = processes.identify(os.getpid())
    assert me is not None
    assert not processes.alive(replace(me, boot="another"))


def test_an_ended_process_is_not_alive_even_before_it_is_reaped(
    child: subprocess.Popen[bytes],
) -> None:
    identity = processes.identify(child.pid)
    assert identity is not None
    processes.kill(identity)
    assert child.returncode is None
    assert not processes.alive(identity)


def test_a_damaged_record_is_refused() -> None:
    with pytest.raises(ValueError, match="not an identity"):
        processes.load("12")
