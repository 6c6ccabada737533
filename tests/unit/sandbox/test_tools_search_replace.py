"""search_replace: the parser, the matching, and what it does to files."""

from __future__ import annotations

import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner.blocks import BadBlocks, Block, parse
from ratchet_sandbox.runner.search_replace import apply

from tests.unit.sandbox.runners import Bench


def block(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


def test_blocks_are_found_in_text_and_fences() -> None:
    content = "Here:\n```\n" + block("a", "b") + "```\nand\n" + block("c\nd", "")

    assert parse(content) == [Block("a", "b"), Block("c\nd", "")]


def test_markers_may_be_shorter_or_longer_and_end_in_crlf() -> None:
    content = "<<<<< SEARCH\r\na\r\n=====\r\nb\r\n>>>>>>>>> REPLACE\r\n"

    assert parse(content) == [Block("a", "b")]


def test_replacement_text_may_hold_a_line_of_equals_signs() -> None:
    assert parse(block("Title", "Title\n=======")) == [Block("Title", "Title\n=======")]


def test_an_empty_replacement_has_no_line() -> None:
    assert parse("<<<<<<< SEARCH\na\n=======\n>>>>>>> REPLACE") == [Block("a", "")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no block"),
        ("just text", "looks like this"),
        ("<<<<<<< SEARCH\na\n", "block 1 has no end"),
        ("<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n", "expected ======="),
        ("<<<<<<< SEARCH\na\n=======\nb\n<<<<<<< SEARCH\n", "expected >>>>>>> REPLACE"),
        (">>>>>>> REPLACE\n", "was not begun"),
    ],
)
def test_a_torn_block_is_refused_with_what_is_missing(content: str, says: str) -> None:
    with pytest.raises(BadBlocks, match=says):
        parse(content)


def test_longer_markers_hold_any_text() -> None:
    conflict = "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> other"
    inner = block("x", "y").rstrip("\n")
    for text in (conflict, inner, "Title\n=====", "a\n=========\nb"):
        wide = f"<<<<<<<<<< SEARCH\n{text}\n==========\nnew\n>>>>>>>>>> REPLACE\n"
        assert parse(wide) == [Block(text, "new")]


def test_a_line_of_equals_signs_of_another_length_is_text() -> None:
    assert parse(block("Title\n=====", "New\n===")) == [Block("Title\n=====", "New\n===")]


def test_blocks_of_different_markers_each_end_at_their_own() -> None:
    sloppy = "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>>>> REPLACE\n"
    short = "<<<<< SEARCH\nc\n=====\nd\n>>>>> REPLACE\n"

    assert parse(sloppy + short) == [Block("a", "b"), Block("c", "d")]


@given(st.lists(st.tuples(st.text("ab<=> \n", min_size=1), st.text("ab<=> \n")), min_size=1))
def test_blocks_with_markers_longer_than_anything_inside_are_read_back(
    pairs: list[tuple[str, str]],
) -> None:
    width = 2 + max(len(text) for pair in pairs for text in pair) + 5
    content = "".join(
        f"{'<' * width} SEARCH\n{old}\n{'=' * width}\n{new}\n{'>' * width} REPLACE\n"
        for old, new in pairs
    )

    assert parse(content) == [Block(old, new) for old, new in pairs]


def test_blocks_are_applied_in_order_each_on_the_last_ones_text() -> None:
    assert apply("one\ntwo\n", [Block("one", "1"), Block("1\ntwo", "done")]) == ("done\n", [1, 1])


def test_text_that_occurs_twice_is_refused_with_its_lines() -> None:
    with pytest.raises(BadBlocks, match="occurs 2 times, at lines 1, 3"):
        apply("a\nb\na\n", [Block("a", "x")])


def test_overlapping_occurrences_count_as_two() -> None:
    with pytest.raises(BadBlocks, match="occurs 2 times"):
        apply("ababa", [Block("aba", "x")])


def test_a_deleted_line_takes_its_line_end_with_it() -> None:
    assert apply("a\nb\nc\n", [Block("b", "")])[0] == "a\nc\n"
    assert apply("a\r\nb\r\nc\r\n", [Block("b", "")])[0] == "a\r\nc\r\n"
    assert apply("a b c\n", [Block(" b", "")])[0] == "a c\n"


def test_the_files_line_ends_are_matched_and_kept() -> None:
    changed, _ = apply("a\r\nb\r\nc\r\n", [Block("a\nb", "x\ny\nz")])

    assert changed == "x\r\ny\r\nz\r\nc\r\n"


def test_a_line_end_in_the_search_is_not_taken_twice() -> None:
    assert apply("a\nb\n\nc\n", [Block("b\n", "")])[0] == "a\n\nc\n"


@pytest.mark.parametrize(
    ("text", "search", "new", "becomes"),
    [
        ("a\r\nb\nc\n", "a\nb\nc", "x\ny", "x\r\ny\n"),
        ("a\nb\r\nc\r\n", "b", "x\ny", "a\nx\r\ny\r\nc\r\n"),
        ("a\r\nb\nc", "c", "x\ny", "a\r\nb\nx\ny"),
        ("a\r\nb", "b", "x\ny", "a\r\nx\r\ny"),
        ("\r\n\r\na\r\n", "a", "b", "\r\n\r\nb\r\n"),
        ("a\rb\r\nc\r\n", "c", "d", "a\rb\r\nd\r\n"),
    ],
)
def test_where_line_ends_are_mixed_the_nearest_one_is_kept(
    text: str, search: str, new: str, becomes: str
) -> None:
    assert apply(text, [Block(search, new)])[0] == becomes


def test_text_that_differs_in_its_line_ends_alone_is_not_unique() -> None:
    with pytest.raises(BadBlocks, match="occurs 2 times, at lines 1, 3"):
        apply("a\r\nb\r\na\nb\n", [Block("a\nb", "x")])


@given(st.lists(st.sampled_from(["a", "b", "", "c d"])), st.booleans(), st.data())
def test_an_edit_is_the_same_whatever_the_line_ends(
    lines: list[str], crlf: bool, data: st.DataObject
) -> None:
    search = "\n".join(data.draw(st.sampled_from([lines[i:j] for i in range(len(lines)) for j in
                                                  range(i + 1, len(lines) + 1)] or [["z"]])))  # fmt: skip
    plain = "".join(f"{line}\n" for line in lines)
    text = plain.replace("\n", "\r\n") if crlf else plain
    if not search.strip("\n") or sum(plain.startswith(search, at) for at in range(len(plain))) != 1:
        with pytest.raises(BadBlocks):
            apply(text, [Block(search, "n\nm")])
        return
    changed, at = apply(text, [Block(search, "n\nm")])
    assert changed.replace("\r\n", "\n") == plain.replace(search, "n\nm")
    assert at == [plain[: plain.index(search)].count("\n") + 1]
    assert crlf or "\r" not in changed
    assert not crlf or changed.count("\n") == changed.count("\r\n")


def test_a_miss_shows_the_nearest_lines() -> None:
    text = "".join(f"def f{n}(a, b):\n    return {n}\n" for n in range(50))

    with pytest.raises(BadBlocks, match=r"block is not in the file.*at line 85") as caught:
        apply(text, [Block("def f42(a, c):\n    return 42", "")])
    assert "    85→def f42(a, b):\n    86→    return 42" in str(caught.value)


def test_a_miss_by_white_space_says_so() -> None:
    with pytest.raises(BadBlocks, match="differs in white space only"):
        apply("\tif x:\n\t\treturn 1\n", [Block("    if x:\n        return 1", "")])


def test_a_miss_says_from_which_line_on_it_differs() -> None:
    text = "def f():\n    a = 1\n    b = 2\n    return a\n"

    with pytest.raises(BadBlocks, match="at line 1: It differs from line 3 on") as caught:
        apply(text, [Block("def f():\n    a = 1\n    b = 3\n    return a", "")])
    assert "     3→    b = 2" in str(caught.value)


def test_the_lines_that_are_there_find_the_place_though_the_longest_was_changed() -> None:
    text = "".join(f"x{n} = 1\nlonger line number {n} of the file\n" for n in range(100))

    with pytest.raises(BadBlocks, match="at line 85"):
        apply(text, [Block("x42 = 1\nsomething else that is entirely different", "")])


def test_a_change_that_was_made_before_is_recognised() -> None:
    with pytest.raises(BadBlocks, match="The REPLACE text is, at line 2: the change may have"):
        apply("a\nnew\n", [Block("old", "new")])


def test_a_text_like_nothing_in_the_file_gets_no_nearest() -> None:
    with pytest.raises(BadBlocks, match="Read the file and copy"):
        apply("a\nb\n", [Block("something else altogether", "")])


@pytest.mark.parametrize(
    "text",
    ["a" * 4_000_000, "ab\n" * 1_000_000, ("x" * 250 + "\n") * 19_000,
     "".join(f"{n:0200}\n" for n in range(19_000))],
    ids=["one line", "a million lines", "long lines alike", "long lines, each another"],
)  # fmt: skip
@pytest.mark.parametrize("search", ["y" + "a" * 60_000, "z" + "x" * 250, "1\n" * 20_000 + "q"])
def test_a_miss_in_a_large_file_is_told_in_bounded_time(text: str, search: str) -> None:
    began = time.process_time()

    with pytest.raises(BadBlocks) as caught:
        apply(text, [Block(search, "")])

    assert time.process_time() - began < 5
    assert len(str(caught.value)) < 10_000


def test_copied_line_numbers_are_recognised() -> None:
    with pytest.raises(BadBlocks, match="Leave out the line numbers"):
        apply("a\nb\n", [Block("     1→a\n     2→b", "")])


def test_an_empty_search_is_refused() -> None:
    with pytest.raises(BadBlocks, match="empty SEARCH"):
        apply("a", [Block("", "x")])


@given(st.text(), st.text(min_size=1).filter(str.strip), st.text(), st.text(min_size=1))
def test_a_unique_text_is_replaced_and_nothing_else(
    before: str, search: str, after: str, new: str
) -> None:
    text = before + search + after
    try:
        changed, _ = apply(text, [Block(search, new)])
    except BadBlocks:
        assert text.count(search) > 1 or text.find(search, text.find(search) + 1) >= 0
        return
    at = text.find(search)
    assert changed.startswith(text[:at])
    assert changed.endswith(text[at + len(search) :])


async def test_all_blocks_are_applied_or_none(bench: Bench) -> None:
    path = bench.write("f.py", "one\ntwo\nthree\n")

    refused = await bench.use(
        "search_replace", path="f.py", content=block("one", "1") + block("four", "4")
    )
    assert path.read_text() == "one\ntwo\nthree\n"
    done = await bench.use(
        "search_replace", path="f.py", content=block("one", "1") + block("three", "3")
    )

    assert refused.outcome is Outcome.FAILED
    assert refused.content.startswith("f.py was not changed: the SEARCH text of block 2")
    assert done.content == "f.py: 2 blocks applied, at line 1, 3"
    assert path.read_text() == "1\ntwo\n3\n"
    assert done.meta.before != done.meta.after


async def test_bytes_that_are_no_text_stay_as_they_are(bench: Bench) -> None:
    path = bench.write("f", b"\xff\xfe!\nname = old\n\x80")
    path.write_bytes(b"\x80\xff!\nname = old\n\x80")

    result = await bench.use("search_replace", path="f", content=block("old", "new"))

    assert path.read_bytes() == b"\x80\xff!\nname = new\n\x80"
    assert result.meta.not_utf8


async def test_utf16_files_stay_utf16(bench: Bench) -> None:
    path = bench.write("f", "é old\r\n".encode("utf-16"))

    await bench.use("search_replace", path="f", content=block("é old", "é new"))

    assert path.read_bytes().decode("utf-16") == "é new\r\n"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8"])
async def test_mark_order_and_line_ends_of_an_edited_file_are_kept(
    bench: Bench, codec: str
) -> None:
    mark = "\N{ZERO WIDTH NO-BREAK SPACE}"
    path = bench.write("f", f"{mark}é\r\nold\r\n😀".encode(codec))

    result = await bench.use("search_replace", path="f", content=block("old", "new\nmore"))

    assert path.read_bytes() == f"{mark}é\r\nnew\r\nmore\r\n😀".encode(codec)
    assert result.meta.not_utf8 == (codec != "utf-8")


async def test_a_broken_utf16_file_is_not_edited(bench: Bench) -> None:
    path = bench.write("f", b"\xff\xfeo\0l\0d\0\n")

    result = await bench.use("search_replace", path="f", content=block("old", "new"))

    assert result.outcome is Outcome.FAILED
    assert "no text in the encoding that its byte-order mark names" in result.content
    assert path.read_bytes() == b"\xff\xfeo\0l\0d\0\n"


async def test_an_edit_keeps_mode_and_the_missing_last_line_end(bench: Bench) -> None:
    path = bench.write("f", "old")
    path.chmod(0o750)

    await bench.use("search_replace", path="f", content=block("old", "new"))

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


async def test_a_missing_file_is_a_failure(bench: Bench) -> None:
    result = await bench.use("search_replace", path="none", content=block("a", "b"))

    assert result.content.startswith("cannot edit none: No such file or directory")
