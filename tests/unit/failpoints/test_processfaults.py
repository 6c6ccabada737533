"""RATCHET_FAILPOINT: what each fault does to a call, and to the process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ratchet.failpoints import Fault, Point, enable, step
from ratchet.fakes.clock import run
from ratchet.ports import JournalAway
from ratchet.shell.processfaults import FailpointError, Strike, read_faults

OPERATOR = Path(__file__).resolve().parents[3] / "operator"
PROGRAM = """
import asyncio
from ratchet.failpoints import Point, enable, step
from ratchet.ports import JournalAway
from ratchet.shell.processfaults import read_faults

async def call():
    print("called", flush=True)

async def main():
    for _ in range(2):
        await step(Point.RUN, call, JournalAway)
        print("answered", flush=True)

with enable(read_faults()):
    asyncio.run(main())
"""
WITHIN_S = 30.0


class Calls:
    """A step that is called, and what came of it."""

    def __init__(self, failpoint: str, silence: str = "") -> None:
        self.faults = read_faults(
            {"RATCHET_FAILPOINT": failpoint, "RATCHET_FAILPOINT_SILENCE_S": silence}
        )
        self.done: list[float] = []
        """When the call was done, in seconds."""
        self.answers: list[str] = []

    async def pass_by(self, times: int = 1, then_s: float = 0.0) -> None:
        loop = asyncio.get_running_loop()

        async def call() -> str:
            self.done.append(round(loop.time(), 3))
            return "well"

        with enable(self.faults):
            for _ in range(times):
                try:
                    self.answers.append(await step(Point.RUN, call, JournalAway))
                except JournalAway:
                    self.answers.append(f"away at {loop.time():g}")
        await asyncio.sleep(then_s)


def test_an_error_is_answered_at_once_and_nothing_is_done(
    capfd: pytest.CaptureFixture[str],
) -> None:
    calls = Calls("run=error")
    run(calls.pass_by(2))
    assert calls.answers == ["away at 0", "well"]
    assert calls.done == [0]
    assert capfd.readouterr().err == "failpoint run error\n"


def test_a_lost_answer_is_missed_after_a_silence_and_the_call_was_done() -> None:
    calls = Calls("run=answer-lost")
    run(calls.pass_by())
    assert (calls.done, calls.answers) == ([0], ["away at 5"])


def test_a_call_that_never_arrives_is_not_done() -> None:
    calls = Calls("run=never-arrives", silence="0.5")
    run(calls.pass_by())
    assert (calls.done, calls.answers) == ([], ["away at 0.5"])


def test_a_call_is_delivered_again_although_nobody_waits() -> None:
    calls = Calls("run=twice")
    run(calls.pass_by(then_s=1))
    assert (calls.done, calls.answers) == ([0, 0.3], ["well"])


def test_a_fault_strikes_at_the_passing_that_it_names() -> None:
    calls = Calls("append-turn=error@1,run=error@2")
    run(calls.pass_by(3))
    assert calls.answers == ["well", "away at 0", "well"]


@contextmanager
def program(failpoint: str, out: Path) -> Iterator[subprocess.Popen[str]]:
    """Passes the point `run` twice; what it prints goes to a file."""
    environ = {**os.environ, "PYTHONPATH": str(OPERATOR), "RATCHET_FAILPOINT": failpoint}
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=environ, text=True,
            stdout=file, stderr=subprocess.PIPE,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("fault", "printed"),
    [("kill-before@2", "called\nanswered\n"), ("kill-after@2", "called\nanswered\ncalled\n")],
)
def test_a_killed_process_says_where_and_ends_there(
    fault: str, printed: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with program(f"run={fault}", out) as process:
        _, err = process.communicate(timeout=WITHIN_S)
        assert (process.returncode, out.read_text()) == (-signal.SIGKILL, printed)
        assert err == f"failpoint run {fault[:-2]}\n"


@pytest.mark.parametrize(("fault", "before"), [("stall-before", ""), ("stall-after", "called\n")])
def test_a_process_stands_still_until_it_is_sent_on(
    fault: str, before: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with program(f"run={fault}", out) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"failpoint run {fault}\n"
        wait_until_stopped(process.pid)
        assert out.read_text() == before
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(WITHIN_S) == 0
        assert out.read_text() == "called\nanswered\n" * 2


def wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "the process did not stop"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("walk=error", "there is no point 'walk'; there are claim, "),
        ("run=explode", "there is no fault 'explode'; there are kill-before, "),
        ("run", "there is no fault ''"),
        ("run=error@0", "'0' is no passing; the first one is 1"),
        ("run=error@soon", "'soon' is no passing"),
        ("run=error@", "'' is no passing"),
        ("run=error,", "there is no point ''"),
    ],
)
def test_a_bad_value_is_refused_with_a_sentence(text: str, wrong: str) -> None:
    with pytest.raises(FailpointError, match="RATCHET_FAILPOINT has") as error:
        read_faults({"RATCHET_FAILPOINT": text})
    assert wrong in str(error.value)


@pytest.mark.parametrize("text", ["-1", "long", "nan", "inf"])
def test_a_bad_silence_is_refused(text: str) -> None:
    with pytest.raises(FailpointError, match="RATCHET_FAILPOINT_SILENCE_S is"):
        read_faults({"RATCHET_FAILPOINT": "run=error", "RATCHET_FAILPOINT_SILENCE_S": text})


def test_several_faults_may_be_named() -> None:
    faults = read_faults({"RATCHET_FAILPOINT": "append-turn=kill-after@2, claim.owner=twice"})
    assert faults is not None
    assert faults.strikes == (
        Strike(Point.APPEND_TURN, Fault.KILL_AFTER, 2),
        Strike(Point.CLAIM_OWNER, Fault.TWICE, 1),
    )


def test_the_operator_does_not_start_with_a_bad_value() -> None:
    environ = {
        **os.environ, "PYTHONPATH": str(OPERATOR), "RATCHET_FAILPOINT": "run=explode",
        "RATCHET_SERVER_IMAGE": "server", "RATCHET_RUNNER_IMAGE": "runner",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "ratchet.shell.main"],
        env=environ, capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "there is no fault 'explode'" in ended.stderr
