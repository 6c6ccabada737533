"""`python -m tests.attack`: all cases under each runtime; writes build/attack.json."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

from tests.attack import notes, report
from tests.attack.conftest import HERE, RUNTIMES
from tests.attack.notes import Note, Verdict
from tools.circumstances import Circumstances, with_table

REPO = HERE.parents[1]
RESULT = REPO / "build" / "attack.json"
LOGS = REPO / "build" / "attack"
PAGE = REPO / "docs" / "security.md"


def main() -> int:
    """The exit code is 1 where a case failed, and 2 where the cases could not be run."""
    options = _arguments()
    here = Circumstances.now()
    runs: dict[str, list[Note]] = {}
    for runtime in options.runtimes:
        begin = time.monotonic()
        print(f"{runtime}: all cases ...", flush=True)
        found = _run(runtime, options.pytest)
        if not found:
            print(f"error: nothing was run under {runtime}: see above", file=sys.stderr)
            return 2
        runs[runtime] = found
        print(f"{runtime}: {len(found)} cases, {time.monotonic() - begin:.0f} s", flush=True)
    _tell(runs, here, write_docs=options.write_docs)
    return (
        1 if any(note.verdict is Verdict.FAILED for found in runs.values() for note in found) else 0
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument(
        "--runtimes",
        type=lambda text: text.split(","),
        default=RUNTIMES,
        help=f"comma-separated; all: {','.join(RUNTIMES)}",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help=f"write the table into {PAGE.name}"
    )
    parser.add_argument("pytest", nargs="*", help="more words for pytest, after --")
    return parser.parse_args()


def _run(runtime: str, more: list[str]) -> list[Note]:
    """The notes of one run; empty if there are none."""
    path = LOGS / f"{runtime}.json"
    path.unlink(missing_ok=True)
    subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-m", "attack", str(HERE), *more),
        cwd=REPO,
        env={
            **os.environ,
            "RATCHET_RUNTIME": runtime,
            "RATCHET_ATTACK_NOTES": str(path),
            "RATCHET_NEED_CLUSTER": "1",
        },
        check=False,
    )
    return notes.read(path) if path.exists() else []


def _tell(runs: dict[str, list[Note]], here: Circumstances, *, write_docs: bool) -> None:
    text = report.table(runs, here)
    print(f"\n{text}\n")
    RESULT.write_text(json.dumps(report.as_json(runs, here), indent=2) + "\n")
    print(
        f"written: {RESULT.relative_to(REPO)}; what was noted of each case: {LOGS.relative_to(REPO)}"
    )
    if write_docs:
        PAGE.write_text(with_table(PAGE.read_text(), text, report.BEGIN, report.END))
        print(f"written: {PAGE.relative_to(REPO)}")


if __name__ == "__main__":
    sys.exit(main())
