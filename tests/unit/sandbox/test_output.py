"""A command's output, bounded while it is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet_sandbox.runner.output import Capture, Text, decode, whole_end


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    return tmp_path / "spill" / "1.txt"


def test_output_that_fits_is_unchanged_and_makes_no_file(spill: Path) -> None:
    capture = Capture(spill, limit=10)
    for piece in (b"0123", b"456789"):
        capture.feed(piece)
    capture.close()

    assert capture.text().content == "0123456789"
    assert not capture.text().truncated
    assert not spill.exists()


def test_output_that_does_not_fit_keeps_head_tail_and_the_whole_in_a_file(spill: Path) -> None:
    capture = Capture(spill, limit=10)
    for piece in (b"0123", b"456789", b"abcdefghij", b"k"):
        capture.feed(piece)
    capture.close()

    assert (
        capture.text().content == f"01234\n[11 bytes left out here; all of it is in {spill}]\nghijk"
    )
    assert capture.text().spill == spill
    assert spill.read_bytes() == b"0123456789abcdefghijk"


def test_the_file_is_bounded_and_the_text_says_so(spill: Path) -> None:
    capture = Capture(spill, limit=10, spill_limit=15)
    for _ in range(10):
        capture.feed(b"0123456789")
    capture.close()

    assert spill.read_bytes() == b"012345678901234"
    assert "its beginning is in" in capture.text().content


def test_a_file_that_cannot_be_written_is_no_failure_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "spill").write_text("a file where the folder should be")
    capture = Capture(tmp_path / "spill" / "1.txt", limit=10)
    capture.feed(b"x" * 20)
    capture.close()

    assert "10 bytes left out here; they could not be kept: " in capture.text().content
    assert capture.text().spill is None


def test_a_link_planted_for_the_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "1.txt").symlink_to(target)
    capture = Capture(tmp_path / "1.txt", limit=10)
    capture.feed(b"x" * 20)
    capture.close()

    assert target.read_text() == "precious"


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_head_and_tail_are_the_ends_of_what_was_fed(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    capture = Capture(Path("/dev/null/none"), limit=20)
    for piece in pieces:
        capture.feed(piece)
    text = capture.text()

    shown = decode(whole)[0]
    assert text.truncated == (max(len(whole), len(shown.encode())) > 20)
    if not text.truncated:
        assert text.content == shown
    assert sum(len(part.encode()) for part in text.content.split("\n[")[:1]) <= 20


@given(st.text(max_size=30), st.integers(0, 120))
def test_cutting_text_at_any_byte_leaves_whole_characters(text: str, at: int) -> None:
    kept = whole_end(text.encode()[:at])

    assert text.startswith(kept.decode())
    assert len(text.encode()[:at]) - len(kept) <= 3


def test_bytes_that_are_no_text_are_counted_as_they_are_shown(spill: Path) -> None:
    capture = Capture(spill, limit=12)
    capture.feed(b"\xff" * 10)
    capture.close()

    assert capture.text() == Text(
        "\ufffd\ufffd\n[6 bytes left out here; all of it is in "
        f"{spill}]\n\ufffd\ufffd", True, spill, True,
    )  # fmt: skip
    assert spill.read_bytes() == b"\xff" * 10


def test_what_was_taken_is_not_given_again(spill: Path) -> None:
    capture = Capture(spill, limit=10)
    capture.feed("é".encode()[:1])
    assert capture.take().content == ""
    capture.feed("é".encode()[1:] + b"123")
    assert capture.take().content == "é123"
    assert capture.take().content == ""
    capture.feed(b"\xc3")
    capture.close()
    assert capture.take() == Text("\N{REPLACEMENT CHARACTER}", False, None, True)


def test_a_later_part_is_cut_by_itself_and_the_file_goes_on(spill: Path) -> None:
    capture = Capture(spill, limit=10, spill_limit=24)
    capture.feed(b"first")
    assert capture.take().content == "first"
    capture.feed(b"0123456789abc")
    assert (
        capture.take().content == f"01234\n[3 bytes left out here; all of it is in {spill}]\n89abc"
    )
    capture.feed(b"0123456789abc")
    assert "its beginning is in" in capture.take().content
    capture.feed(b"0123456789abc")
    capture.close()
    assert "the file for this command's output is full" in capture.take().content
    assert spill.read_bytes() == b"0123456789abc0123456789a"


@given(st.lists(st.tuples(st.text(max_size=6), st.integers(0, 30)), max_size=10))
def test_parts_put_together_are_the_whole(pieces: list[tuple[str, int]]) -> None:
    whole = "".join(text for text, _ in pieces).replace("\0", "0")
    data = whole.encode()
    capture = Capture(Path("/dev/null/none"), limit=1000)
    given, at = "", 0
    for _, size in pieces:
        capture.feed(data[at : at + size])
        at = min(at + size, len(data))
        given += capture.take().content
    capture.feed(data[at:])
    capture.close()
    assert given + capture.take().content == whole


def test_a_character_cut_in_the_middle_is_not_called_invalid(spill: Path) -> None:
    capture = Capture(spill, limit=9)
    capture.feed("é".encode() * 20)
    capture.close()

    assert not capture.text().not_utf8
    assert capture.text().content.startswith("éé\n[")
