"""Writing stays in the workspace: links out, .., and links that are swapped meanwhile."""

from __future__ import annotations

import ctypes
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner import paths, wholefile

from tests.unit.sandbox.runners import Bench

_LIBC, _HERE, _EXCHANGE = ctypes.CDLL(None), -100, 2
"""For renameat2(2), which swaps two names at once: AT_FDCWD and RENAME_EXCHANGE."""
BLOCK = "<<<<<<< SEARCH\nsecret\n=======\nchanged\n>>>>>>> REPLACE"


@pytest.fixture
def outside(bench: Bench) -> Iterator[Path]:
    """A folder beside the workspace; after the test it is as it was."""
    folder = bench.config.workspace.parent / "outside"
    folder.mkdir()
    (folder / "file").write_text("secret")
    yield folder
    assert sorted(p.name for p in folder.iterdir()) == ["file"]
    assert (folder / "file").read_text() == "secret"


@pytest.mark.parametrize("tool", ["write_file", "search_replace"])
@pytest.mark.parametrize(
    "path",
    [
        "../outside/file",
        "../outside/new",
        "a/../../outside/file",
        "{outside}/file",
        "{workspace}/../outside/file",
        "link-to-file",
        "link-to-folder/file",
        "link-to-folder/new/deep",
        "link-to-new",
        "chain",
        "up/file",
        "a/back/outside/file",
    ],
)
async def test_a_path_that_leads_out_is_refused(
    bench: Bench, outside: Path, tool: str, path: str
) -> None:
    workspace = bench.config.workspace
    (workspace / "a").mkdir()
    (workspace / "link-to-file").symlink_to(outside / "file")
    (workspace / "link-to-folder").symlink_to(outside)
    (workspace / "link-to-new").symlink_to(outside / "new")
    (workspace / "chain").symlink_to("link-to-file")
    (workspace / "up").symlink_to("../outside")
    (workspace / "a" / "back").symlink_to("../..")
    more = {"content": "x", "overwrite": True} if tool == "write_file" else {"content": BLOCK}

    result = await bench.use(tool, path=path.format(outside=outside, workspace=workspace), **more)

    assert result.outcome is Outcome.FAILED
    assert f"outside the workspace {workspace}: give a path below that" in result.content


@pytest.mark.parametrize(
    "path", ["in", "{workspace}/in", "folder/../in", "rel", "abs", "to-sub/../in", "./sub/../in"]
)
async def test_links_and_dots_that_stay_in_the_workspace_are_followed(
    bench: Bench, path: str
) -> None:
    workspace = bench.config.workspace
    file = bench.write("in", "old")
    (workspace / "folder").mkdir()
    (workspace / "sub").mkdir()
    (workspace / "rel").symlink_to("folder/../in")
    (workspace / "abs").symlink_to(workspace / "in")
    (workspace / "to-sub").symlink_to("sub/.")

    result = await bench.use(
        "write_file", path=path.format(workspace=workspace), content="new", overwrite=True
    )

    assert result.outcome is Outcome.OK
    assert file.read_text() == "new"


async def test_dots_after_a_link_are_those_of_its_target(bench: Bench) -> None:
    bench.write("a/b/file", "x")
    (bench.config.workspace / "link").symlink_to("a/b")

    await bench.use("write_file", path="link/../new", content="y")

    assert (bench.config.workspace / "a" / "new").read_text() == "y"


async def test_a_workspace_reached_by_a_link_has_two_names(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other-name"
    other.symlink_to(bench.config.workspace)

    with paths.enter(other, f"{other}/f") as place:
        wholefile.replace(place, b"1", None)
    with paths.enter(other, f"{bench.config.workspace}/g") as place:
        wholefile.replace(place, b"2", None)

    assert bench.config.workspace.joinpath("f").read_bytes() == b"1"
    assert bench.config.workspace.joinpath("g").read_bytes() == b"2"


async def test_a_link_made_while_a_file_is_written_is_replaced_and_not_followed(
    bench: Bench, outside: Path
) -> None:
    workspace = bench.config.workspace
    with paths.enter(workspace, "f") as place:
        (workspace / "f").symlink_to(outside / "file")
        with pytest.raises(paths.BadPath, match="link, not a regular file"):
            wholefile.load(place)
        with pytest.raises(paths.BadPath, match="something else changed it"):
            wholefile.replace(place, b"x", None)


async def test_a_folder_swapped_for_a_link_out_is_never_written_through(
    bench: Bench, outside: Path
) -> None:
    """The race itself: one thread swaps, the tool writes; see the fixture for what is asserted."""
    workspace = bench.config.workspace
    (workspace / "here").mkdir()
    (workspace / "evil").symlink_to(outside)
    names = os.fsencode(workspace / "here"), os.fsencode(workspace / "evil")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            assert _LIBC.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        outcomes = [
            (
                await bench.use("write_file", path="here/file", content=str(n), overwrite=True)
            ).outcome
            for n in range(150)
        ]
    finally:
        stop.set()
        thread.join()

    assert Outcome.OK in outcomes
    left = [p for p in workspace.rglob(".ratchet-*") if p.is_file()]
    assert left == []


async def test_a_hard_link_to_a_file_outside_is_parted_and_not_written_through(
    bench: Bench, outside: Path
) -> None:
    inside = bench.config.workspace / "hard"
    inside.hardlink_to(outside / "file")

    result = await bench.use("search_replace", path="hard", content=BLOCK)

    assert result.outcome is Outcome.OK
    assert inside.read_text() == "changed"


async def test_a_deep_path_holds_few_descriptors(bench: Bench) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, hard))
    try:
        written = await bench.use("write_file", path="d/" * 200 + "../" * 100 + "f", content="x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert written.outcome is Outcome.OK
    assert (bench.config.workspace / ("d/" * 100) / "f").read_text() == "x"


async def test_reading_may_go_anywhere(bench: Bench, outside: Path) -> None:
    (bench.config.workspace / "link").symlink_to(outside / "file")

    assert (await bench.use("read_file", path="../outside/file")).content == "     1→secret"
    assert (await bench.use("read_file", path="link")).content == "     1→secret"
