"""Every tool of the runner with arguments that the operator would refuse, and with paths that are
no files: a sentence to act on, in time, and nothing outside the workspace is touched."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ratchet_sandbox.protocol import CONTENT_LIMIT, Outcome
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed
from ratchet_sandbox.runner.tools import SHAPES, TOOLS, checked, in_thread

from tests.unit.bad_arguments import ALL, GOOD, Bad
from tests.unit.sandbox.runners import Bench, open_bench

REFUSED = [bad for bad in ALL if bad.tool in TOOLS and bad.kind != "large"]
LARGE = [bad for bad in ALL if bad.tool in TOOLS and bad.kind == "large"]
BLOCK = "<<<<<<< SEARCH\nsecret\n=======\nchanged\n>>>>>>> REPLACE"
TIME_S = 20
NO_OBJECT: tuple[Any, ...] = (None, [], "ls", 7, {1: 2})
BORNE = ("null", "number")
"""For an argument that may be left out: what the runner takes, though the operator would not."""

Snapshot = dict[str, tuple[int, int, bytes | str]]


def snapshot(folder: Path) -> Snapshot:
    """Everything below a folder: mode, time, and content or target."""
    found: Snapshot = {}
    for path in sorted(folder.rglob("*")):
        seen = path.lstat()
        content: bytes | str = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path)] = (seen.st_mode, seen.st_mtime_ns, content)
    return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A workspace full of traps beside a folder that must stay as it is."""
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").write_text("secret")
    os.mkfifo(outside / "fifo")
    async with open_bench(tmp_path / "inside") as bench:
        _set_traps(bench.config.workspace, outside)
        before = snapshot(outside)
        yield bench
        assert snapshot(outside) == before


def _set_traps(workspace: Path, outside: Path) -> None:
    (workspace / "folder").mkdir()
    (workspace / "file").write_text("secret\n")
    (workspace / "empty").touch()
    (workspace / "no-end").write_text("secret")
    (workspace / "out").symlink_to(outside / "file")
    (workspace / "out-folder").symlink_to(outside)
    (workspace / "dangling").symlink_to("nowhere")
    (workspace / "loop").symlink_to("loop")
    (workspace / "zero").symlink_to("/dev/zero")
    (workspace / "to-fifo").symlink_to("fifo")
    os.mkfifo(workspace / "fifo")
    with open(workspace / "sparse", "wb") as file:
        file.truncate(2**40)
    here = os.getcwd()
    os.chdir(workspace)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.chdir(here)


async def use(bench: Bench, tool: str, arguments: Any) -> ToolResult:
    async with asyncio.timeout(TIME_S):
        result = await bench.use_raw(tool, arguments, hard_timeout_s=TIME_S / 2)
    assert len(result.content.encode()) <= CONTENT_LIMIT * 3
    return result


def test_every_tool_is_in_the_table() -> None:
    assert set(SHAPES) == set(TOOLS) and set(TOOLS) <= set(GOOD)


def test_every_tool_meets_every_kind_of_bad_argument() -> None:
    for tool in TOOLS:
        assert {"type", "extra"} <= {bad.kind for bad in REFUSED if bad.tool == tool}


@pytest.mark.parametrize("tool", TOOLS)
async def test_bad_arguments_are_refused_by_the_runner_too(bench: Bench, tool: str) -> None:
    taken = []
    for bad in REFUSED:
        if bad.tool == tool:
            result = await use(bench, tool, bad.arguments)
            if not (_is_refusal(result, bad) or _may_be_borne(bad)):
                taken.append((str(bad), result))
    assert taken == []


def _is_refusal(result: ToolResult, bad: Bad) -> bool:
    said = "nothing was " in result.content and bad.about in result.content
    return said and result.outcome is Outcome.FAILED and len(result.content) < 300


def _may_be_borne(bad: Bad) -> bool:
    return bad.value in BORNE and not SHAPES[bad.tool][bad.about].required


@pytest.mark.parametrize("bad", LARGE, ids=str)
async def test_a_megabyte_is_refused_or_borne(bench: Bench, bad: Bad) -> None:
    result = await use(bench, bad.tool, bad.arguments)

    written = bad.tool == "write_file" and bad.about == "content"
    assert (result.outcome is Outcome.OK) == written
    assert len(result.content) < 40_000


async def test_arguments_that_are_no_object_are_refused(bench: Bench) -> None:
    for tool in TOOLS:
        for arguments in NO_OBJECT:
            result = await use(bench, tool, arguments)

            assert result.outcome is Outcome.FAILED, (tool, arguments)
            assert result.content.startswith("nothing was done: ")


OUT = ("out", "out-folder/file", "../outside/file", "out-folder/../outside/file", "{outside}/file")
MADE = {"no/such": "no/such", "dangling": "nowhere"}
NO_FILE = {
    "folder": "it is a folder",
    ".": "folder",
    "..": "",
    "/": "",
    "fifo": "it is a FIFO",
    "to-fifo": "it is a FIFO",
    "socket": "it is a device, socket or link",
    "zero": "",
    "/dev/null": "",
    "/dev/tty": "",
    "/proc/self/mem": "",
    "/proc/self/fd/0": "",
    "/proc/self/environ": "",
    "/sys/kernel/mm": "",
    "loop": "symbolic links",
    "file/below": "Not a directory",
    "no/such": "",
    "dangling": "",
    "x" * 300: "",
    "d/" * 3000: "too long",
    "out-folder/fifo": "",
}


@pytest.mark.parametrize("tool", ["write_file", "search_replace"])
async def test_writing_to_what_is_no_file_of_the_workspace(bench: Bench, tool: str) -> None:
    content = {"content": "x"} if tool == "write_file" else {"content": BLOCK}
    before = snapshot_of(bench)
    for path in (*NO_FILE, *OUT, "sparse", "empty"):
        if tool == "write_file" and path in MADE:
            continue
        where = path.format(outside=bench.config.workspace.parent.parent / "outside")

        result = await use(bench, tool, {"path": where, **content})

        assert result.outcome is Outcome.FAILED, path
        assert result.content.startswith(("cannot ", "empty ")), path
        assert NO_FILE.get(path, "") in result.content
        assert path not in OUT or "outside the workspace" in result.content
        assert len(result.content) < 400
    assert snapshot_of(bench) == before


async def test_a_missing_file_is_made_also_at_the_end_of_a_link(bench: Bench) -> None:
    for path, made in MADE.items():
        await use(bench, "write_file", {"path": path, "content": "x"})
        assert (bench.config.workspace / made).read_text() == "x"


@pytest.mark.parametrize("tool", ["read_file", "grep"])
async def test_reading_what_is_no_file(bench: Bench, tool: str) -> None:
    pattern = {"pattern": "secret"} if tool == "grep" else {}
    for path, says in NO_FILE.items():
        if tool == "grep" and path in ("folder", ".", "..", "/"):
            continue  # may be searched

        result = await use(bench, tool, {"path": path, **pattern})

        assert result.outcome is Outcome.FAILED, path
        assert result.content.startswith("cannot ") and ": " in result.content
        assert says in result.content
        assert len(result.content) < 400


async def test_a_sparse_file_of_a_terabyte_is_read_in_bounds(bench: Bench) -> None:
    start = await use(bench, "read_file", {"path": "sparse", "limit": 1})
    beyond = await bench.use("read_file", path="sparse", offset=10, hard_timeout_s=0.5)

    assert start.outcome is Outcome.OK and start.meta.truncated and start.meta.not_utf8
    assert beyond.outcome is Outcome.FAILED
    assert "given up: it took over 0.5 s; take a smaller part" in beyond.content


async def test_a_disk_that_never_answers_ends_the_call_and_not_the_runner(bench: Bench) -> None:
    answer = threading.Event()

    def hang(_context: Context, _arguments: Arguments) -> ToolResult:
        answer.wait(TIME_S)
        return failed("too late")

    tool = checked({}, in_thread(hang, grace_s=0))
    try:
        result = await tool(bench.context(hard_timeout_s=0.1), {})
    finally:
        answer.set()

    assert result.outcome is Outcome.TIMED_OUT
    assert "the file system did not answer in time" in result.content


async def test_a_read_that_is_cancelled_ends_at_once(bench: Bench) -> None:
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.1, stop.set_result, None)

    async with asyncio.timeout(TIME_S):
        result = await bench.use("read_file", path="sparse", offset=10, stop=stop)

    assert "given up: it was cancelled" in result.content


def snapshot_of(bench: Bench) -> dict[str, int]:
    """Names and sizes in the workspace, the terabyte not read."""
    return {
        str(path): path.lstat().st_size
        for path in bench.config.workspace.rglob("*")
        if ".ratchet" not in path.parts
    }
