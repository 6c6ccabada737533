"""read_file and write_file."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import stat
import threading

import pytest
from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner import paths, wholefile

from tests.unit.sandbox.runners import Bench


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def test_lines_are_numbered_from_the_offset(bench: Bench) -> None:
    bench.write("f", "".join(f"line {n}\n" for n in range(1, 6)))

    result = await bench.use("read_file", path="f", offset=1, limit=2)

    assert result.content == (
        "     2→line 2\n     3→line 3\n[the file goes on: read with offset 3]"
    )
    assert result.meta.truncated


async def test_a_file_without_a_last_line_end_is_read_whole(bench: Bench) -> None:
    bench.write("f", "a\nb")

    result = await bench.use("read_file", path="f")

    assert result.content == "     1→a\n     2→b"
    assert not result.meta.truncated


async def test_2000_lines_are_the_default(bench: Bench) -> None:
    bench.write("f", "x\n" * 2001)

    result = await bench.use("read_file", path="f")

    assert result.content.endswith("  2000→x\n[the file goes on: read with offset 2000]")


async def test_reading_past_the_end_says_how_long_the_file_is(bench: Bench) -> None:
    bench.write("f", "a\nb\nc")
    bench.write("empty", "")

    assert (await bench.use("read_file", path="f", offset=9)).content == "[the file has 3 lines]"
    assert (await bench.use("read_file", path="empty")).content == "[the file is empty]"


async def test_a_huge_line_is_cut_at_a_whole_character(bench: Bench) -> None:
    bench.write("f", "é" * 50_000 + "\nnext\n")

    result = await bench.use("read_file", path="f")
    rest = await bench.use("read_file", path="f", offset=1)

    assert len(result.content.encode()) < 64_200
    assert "é\n[line 1 is too long and cut here; what follows it: offset 1]" in result.content
    assert not result.meta.not_utf8
    assert rest.content == "     2→next"


async def test_much_text_is_cut_between_lines_at_64000_bytes(bench: Bench) -> None:
    bench.write("f", ("x" * 99 + "\n") * 1000)

    result = await bench.use("read_file", path="f")

    assert "[the file goes on: read with offset 640]" in result.content


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfh\xc3\xa9\r\nb\r\n",
        "hé\r\nb\r\n".encode("utf-16"),
        "hé\nb".encode("utf-16-be"),
    ],
    ids=["UTF-8 with a mark", "UTF-16", "UTF-16 of the other order"],
)
async def test_marks_and_line_ends_are_not_shown(bench: Bench, data: bytes) -> None:
    marked = data if data[:2] != b"\0h" else b"\xfe\xff" + data
    bench.write("f", marked)

    result = await bench.use("read_file", path="f")

    assert result.content.split("\n[")[0] == "     1→hé\n     2→b"


async def test_bytes_that_are_no_utf8_are_flagged(bench: Bench) -> None:
    bench.write("f", b"caf\xe9\nok\n")

    result = await bench.use("read_file", path="f")

    assert result.content.startswith("     1→caf�\n     2→ok\n[some bytes are no UTF-8")
    assert result.meta.not_utf8


BLOCK = "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE"
FILE_TOOLS: dict[str, dict[str, str]] = {
    "read_file": {},
    "write_file": {"content": "x"},
    "search_replace": {"content": BLOCK},
}


@pytest.mark.parametrize("tool", FILE_TOOLS)
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("folder", "it is a folder, not a file: list it with bash (ls)"),
        ("folder/", "folder"),
        ("fifo", "it is a FIFO, not a regular file: use it with bash, under timeout"),
        ("socket", "it is a device, socket or link, not a regular file: use it with bash"),
        ("zero", "it is "),
        ("/dev/zero", "it is "),
        ("/proc/self/mem", "it is "),
        ("loop", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
        ("x/" * 3000, "the path is too long"),
    ],
)
async def test_what_is_no_regular_file_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tool: str, path: str, says: str
) -> None:
    workspace = bench.config.workspace
    (workspace / "folder").mkdir()
    (workspace / "zero").symlink_to("/dev/zero")
    (workspace / "loop").symlink_to("loop")
    os.mkfifo(workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(workspace)  # the address of a socket must be short
        listener.bind("socket")

        result = await bench.use_raw(tool, {"path": path, **FILE_TOOLS[tool]})

    assert result.outcome is Outcome.FAILED
    assert result.content.startswith("cannot ") and says in result.content
    assert len(result.content) < 300


async def test_a_missing_file_is_a_failure_in_plain_words(bench: Bench) -> None:
    result = await bench.use("read_file", path="no/such")

    assert (result.outcome, result.content) == (
        Outcome.FAILED,
        "cannot read no/such: No such file or directory: look for it with bash (ls, find)",
    )


async def test_a_new_file_is_written_with_the_folders_on_its_way(bench: Bench) -> None:
    result = await bench.use("write_file", path="a/b/c.txt", content="hé\n")

    path = bench.config.workspace / "a/b/c.txt"
    assert path.read_bytes() == "hé\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    assert result.content == "a/b/c.txt: created, 4 bytes"
    assert (result.meta.before, result.meta.after) == (None, digest("hé\n".encode()))


async def test_a_file_that_is_there_is_kept_without_overwrite(bench: Bench) -> None:
    path = bench.write("f", "old")

    refused = await bench.use("write_file", path="f", content="new")
    same = await bench.use("write_file", path="f", content="old")

    assert refused.outcome is Outcome.FAILED
    assert "Set overwrite" in refused.content
    assert same.outcome is Outcome.OK  # a repeated call ends like the first one
    assert path.read_text() == "old"


async def test_overwriting_keeps_mode_line_ends_and_mark(bench: Bench) -> None:
    path = bench.write("f", b"\xef\xbb\xbfa\r\nb\r\n")
    path.chmod(0o755)

    result = await bench.use("write_file", path="f", content="c\nd\n", overwrite=True)

    assert path.read_bytes() == b"\xef\xbb\xbfc\r\nd\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert "CRLF line ends kept" in result.content
    assert result.meta.after == digest(path.read_bytes())


async def test_a_link_is_written_through_and_stays_a_link(bench: Bench) -> None:
    target = bench.write("target", "old")
    link = bench.config.workspace / "link"
    link.symlink_to("target")

    await bench.use("write_file", path="link", content="new", overwrite=True)

    assert link.is_symlink()
    assert target.read_text() == "new"


async def test_a_failed_write_leaves_no_file_behind(bench: Bench) -> None:
    bench.write("file", "x")

    result = await bench.use("write_file", path="file/below", content="y")

    assert result.outcome is Outcome.FAILED
    assert [p.name for p in bench.config.workspace.iterdir()] == ["file"]


async def test_reading_utf16_is_flagged_and_said(bench: Bench) -> None:
    bench.write("f", "a\nb".encode("utf-16"))

    result = await bench.use("read_file", path="f")

    assert result.content == (
        "     1→a\n     2→b\n"
        "[the file is written in UTF-16-LE; changes by the file tools keep that]"
    )
    assert result.meta.not_utf8


async def test_a_broken_utf16_file_is_read_with_what_is_broken_replaced(bench: Bench) -> None:
    bench.write("f", b"\xff\xfea\0\x00\xd8b\0!")

    result = await bench.use("read_file", path="f")

    assert result.content.startswith("     1→a\N{REPLACEMENT CHARACTER}b")
    assert result.meta.not_utf8


async def test_a_huge_utf16_file_is_not_taken_into_memory(bench: Bench) -> None:
    path = bench.write("f", "a".encode("utf-16"))
    os.truncate(path, 2**40)

    result = await bench.use("read_file", path="f")

    assert "it is UTF-16-LE and over 16777216 bytes: convert it with bash" in result.content


async def test_very_many_empty_lines_are_cut_between_lines(bench: Bench) -> None:
    bench.write("f", "\n" * 100_000)

    result = await bench.use("read_file", path="f", limit=100_000)

    assert len(result.content.encode()) < 100_000
    assert result.content.endswith("  3200→\n[the file goes on: read with offset 3200]")


async def test_a_mark_in_the_new_content_is_not_doubled(bench: Bench) -> None:
    path = bench.write("f", b"\xef\xbb\xbfa")

    await bench.use("write_file", path="f", content="\ufeffb", overwrite=True)

    assert path.read_bytes() == b"\xef\xbb\xbfb"


async def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_other(bench: Bench) -> None:
    path = bench.write("f", "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        result = await bench.use("write_file", path="f", content="x" * 10_000, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert result.outcome is Outcome.FAILED
    assert result.content == "cannot write f: File too large"
    assert [p.name for p in bench.config.workspace.iterdir()] == ["f"]
    assert path.read_text() == "old"


async def test_a_file_changed_between_read_and_write_is_not_overwritten(bench: Bench) -> None:
    path = bench.write("f", "old")
    with paths.enter(bench.config.workspace, "f") as place:
        loaded = wholefile.load(place)
        path.write_text("changed by a command")
        with pytest.raises(paths.BadPath, match="something else changed it meanwhile"):
            wholefile.replace(place, b"new", loaded)

    assert path.read_text() == "changed by a command"
    assert [p.name for p in bench.config.workspace.iterdir()] == ["f"]


async def test_a_reader_sees_the_old_or_the_new_file_whole(bench: Bench) -> None:
    path = bench.write("f", "0" * 50_000)
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            text = path.read_text()
            seen.add(text[0] if len(text) == 50_000 and len(set(text)) == 1 else "torn")

    thread = threading.Thread(target=read)
    thread.start()
    for digit in "123456789" * 5:
        await bench.use("write_file", path="f", content=digit * 50_000, overwrite=True)
    stop.set()
    thread.join()

    assert "torn" not in seen and len(seen) > 1
