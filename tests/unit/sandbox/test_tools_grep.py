"""grep: ripgrep's answers, bounded; the program itself is tried where it is installed."""

from __future__ import annotations

import shutil

import pytest
from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner.grep import describe
from ratchet_sandbox.runner.processes import Completed

from tests.unit.sandbox.runners import Bench

needs_ripgrep = pytest.mark.skipif(shutil.which("rg") is None, reason="ripgrep is not installed")


def completed(output: bytes = b"", code: int | None = 0, errors: str = "") -> Completed:
    return Completed(code, output, errors, len(output))


def test_no_match_is_an_answer_and_not_a_failure() -> None:
    assert describe(completed(code=1), 100, cancelled=False).content == "[no matches]"
    assert describe(completed(code=1), 100, cancelled=False).outcome is Outcome.OK


def test_more_matches_than_asked_for_are_cut_and_said() -> None:
    result = describe(completed(b"a:1:x\nb:1:x\nc:1:x\n", code=None), 2, cancelled=False)

    assert result.content == "a:1:x\nb:1:x\n[more than 2 matches: narrow the pattern or the path]"
    assert result.meta.truncated


def test_an_error_of_the_search_is_the_models_to_mend() -> None:
    result = describe(completed(code=2, errors="regex parse error"), 2, cancelled=False)

    assert (result.outcome, result.content) == (
        Outcome.FAILED,
        "the search failed: regex parse error",
    )


def test_matches_found_before_an_unreadable_file_still_count() -> None:
    assert describe(completed(b"a:1:x\n", code=2), 2, cancelled=False).outcome is Outcome.OK


async def test_a_runtime_without_ripgrep_is_a_clear_failure(bench: Bench) -> None:
    (bench.config.runtime / "bin" / "rg").unlink(missing_ok=True)

    result = await bench.use("grep", pattern="x")

    assert result.outcome is Outcome.FAILED
    assert "ripgrep is missing" in result.content


@needs_ripgrep
async def test_matches_name_file_and_line_below_the_workspace(bench: Bench) -> None:
    bench.write("a.txt", "one\ntwo\n")
    bench.write("sub/b.txt", "two\n")
    bench.write(".hidden", "two\n")

    result = await bench.use("grep", pattern="t.o")

    assert result.content.splitlines() == [".hidden:1:two", "a.txt:2:two", "sub/b.txt:1:two"]


@needs_ripgrep
async def test_ignored_files_are_left_out_unless_asked_for(bench: Bench) -> None:
    bench.write(".gitignore", "build/\n")
    bench.write("build/out.txt", "needle\n")
    bench.write(".git/config", "needle\n")
    bench.write(".ratchet/run/x", "needle\n")

    without = await bench.use("grep", pattern="needle")
    with_ignored = await bench.use("grep", pattern="needle", use_default_ignore=False)

    assert without.content == "[no matches]"
    assert with_ignored.content == "build/out.txt:1:needle"


@needs_ripgrep
async def test_a_flood_of_matches_stops_at_the_limit(bench: Bench) -> None:
    bench.write("big", "match\n" * 500_000)

    result = await bench.use("grep", pattern="match", max_matches=3)

    assert result.content.splitlines()[:3] == ["big:1:match", "big:2:match", "big:3:match"]
    assert result.content.endswith("[more than 3 matches: narrow the pattern or the path]")


@needs_ripgrep
async def test_a_pattern_that_looks_like_an_option_is_a_pattern(bench: Bench) -> None:
    bench.write("f", "--files\n")

    assert (await bench.use("grep", pattern="--files")).content == "f:1:--files"


@needs_ripgrep
async def test_a_bad_pattern_and_a_missing_path_are_failures(bench: Bench) -> None:
    bad = await bench.use("grep", pattern="(")
    missing = await bench.use("grep", pattern="x", path="none")

    assert "unclosed group" in bad.content
    assert missing.content.startswith("cannot search none: No such file or directory")
