"""search_replace: the parser, the matching, and what it does to files."""

from __future__ import annotations

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


def test_a_miss_shows_the_nearest_lines() -> None:
    text = "".join(f"def f{n}(a, b):\n    return {n}\n" for n in range(50))

    with pytest.raises(BadBlocks, match=r"block is not in the file.*at line 85") as caught:
        apply(text, [Block("def f42(a, c):\n    return 42", "")])
    assert "    85→def f42(a, b):\n    86→    return 42" in str(caught.value)


def test_a_miss_by_white_space_says_so() -> None:
    with pytest.raises(BadBlocks, match="differs in white space only"):
        apply("\tif x:\n\t\treturn 1\n", [Block("    if x:\n        return 1", "")])


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


async def test_a_missing_file_is_a_failure(bench: Bench) -> None:
    result = await bench.use("search_replace", path="none", content=block("a", "b"))

    assert result.content.startswith("cannot edit none: No such file or directory")
