"""Which processes belong to the model's shell."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

from ratchet_sandbox.runner import family
from ratchet_sandbox.runner.family import Row

RUNNER, SHELL, HELPER = 1, 10, 20
ROWS = {
    RUNNER: Row(0, 1, 1, "S"),
    SHELL: Row(RUNNER, SHELL, SHELL, "S"),
    11: Row(SHELL, SHELL, SHELL, "R"),
    12: Row(11, 12, 12, "S"),  # a session of its own, still a descendant
    13: Row(RUNNER, SHELL, SHELL, "S"),  # lost its parent, kept the session
    14: Row(RUNNER, 14, 14, "S"),  # detached twice: parent and session are lost
    15: Row(14, 15, 15, "S"),
    HELPER: Row(RUNNER, HELPER, HELPER, "S"),
    21: Row(HELPER, HELPER, HELPER, "S"),
    30: Row(0, 30, 30, "S"),  # somebody's debugging shell
}


def members(*, adopts: bool, marked: frozenset[int] = frozenset()) -> set[int]:
    rows = {pid: replace(row, marked=pid in marked) for pid, row in ROWS.items()}
    return family.members(rows, {SHELL}, parent=RUNNER, helpers={HELPER}, adopts_orphans=adopts)


def test_session_and_descent_are_followed() -> None:
    assert members(adopts=False) == {SHELL, 11, 12, 13}


def test_a_marked_process_and_its_children_belong_too() -> None:
    assert members(adopts=False, marked=frozenset({14})) == {SHELL, 11, 12, 13, 14, 15}


def test_one_who_adopts_orphans_finds_what_lost_every_other_sign() -> None:
    assert members(adopts=True) == {SHELL, 11, 12, 13, 14, 15}


def test_the_runner_and_its_helpers_are_never_among_them() -> None:
    everything = frozenset(ROWS)

    found = members(adopts=True, marked=everything)

    assert not found & {RUNNER, HELPER, 21}


def test_a_command_with_brackets_in_its_name_is_read_right() -> None:
    # The kernel puts the command's name in parentheses, whatever is in it (proc(5)).
    code = "open('/proc/self/comm', 'w').write('a) R 1 (b'); print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        process.stdout.readline()
        row = family.table()[process.pid]
    finally:
        process.communicate(b"\n")

    assert (row.parent, row.session) == (os.getpid(), os.getsid(0))


async def test_killing_goes_on_until_nothing_is_found() -> None:
    """A fork chain that runs away from its pid is stopped and killed."""
    mark = "FAMILY_TEST=" + os.urandom(8).hex()
    name, value = mark.split("=")
    code = "import os, time\nfor _ in range(300):\n if os.fork(): os._exit(0)\n time.sleep(0.001)"
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], check=True,
        env={**os.environ, name: value}, start_new_session=True,
    )  # fmt: skip
    marked = family.marked_with(mark.encode())

    def chain() -> set[int]:
        return {pid for pid, row in family.table(marked).items() if row.marked}

    left = await family.kill(chain)

    assert left == set()
    assert chain() == set()
