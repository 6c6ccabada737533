"""Journals that were written once are read for ever: verified, replayed, and written the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ratchet.cli.main import main
from ratchet.core.config import JOURNAL_VERSION, Config
from ratchet.core.evolve import begin
from ratchet.core.facts import SandboxRef
from ratchet.core.records import EndOutcome, Outcome, Record, Start, Turn, Verdict
from ratchet.core.state import State
from ratchet.core.transcript import asked_as, told
from ratchet.edges import checking, wire

from tests.e2e.journals.save import FOLDER
from tests.e2e.journals.shapes import SHAPES
from tests.unit.journal.saved import FILES, items, ref

NOW = datetime(2026, 3, 1, tzinfo=UTC)
files = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
of_this_version = pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent == FOLDER], ids=lambda file: file.stem
)


def records_of(file: Path) -> tuple[Record, ...]:
    task, *turns = items(file)
    return checking.read(ref(task), turns)


def asked(config: Config, before: Sequence[Turn], turn: Turn) -> tuple[str, int] | None:
    """Which endpoint was asked for a turn, and with which squeeze; None: the journal does not give it."""
    [model] = [one for one in config.endpoints if one.known_as == turn.reply.endpoint]
    squeeze = asked_as(config, told(config, before, model), turn, model)
    return None if squeeze is None else (model.known_as, squeeze)


def replayed(file: Path, records: tuple[Record, ...]) -> State:
    """The state of the owner after the one that wrote these records."""
    generation = max((r.generation for r in records if isinstance(r, Turn)), default=1)
    return begin(
        task_uid=ref(items(file)[0]).uid,
        epoch=max(record.epoch for record in records) + 1,
        started=NOW,
        deadline=None,
        cancelled=False,
        asking=None,
        lost_requests=0,
        sandbox=SandboxRef(max(1, generation)),
        records=records,
    )


@files
def test_it_is_valid(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(file)]) == 0
    assert " valid. " in capsys.readouterr().out


@files
def test_every_part_of_it_can_be_gone_on_with(file: Path) -> None:
    records = records_of(file)
    for length in range(1, len(records) + 1):
        state = replayed(file, records[:length])
        assert not state.broken
        assert state.turns == tuple(r for r in records[:length] if isinstance(r, Turn))


@files
def test_the_requests_that_it_gives_are_those_that_were_sent(file: Path) -> None:
    start, *rest = records_of(file)
    assert isinstance(start, Start)
    turns = [record for record in rest if isinstance(record, Turn)]
    for n, turn in enumerate(turns):
        assert asked(start.config, turns[:n], turn) is not None


@files
def test_a_loop_that_goes_on_with_it_asks_the_same(file: Path) -> None:
    """What `begin` makes of the first records is the request that the next one answered."""
    records = records_of(file)
    for n, turn in enumerate(records):
        if isinstance(turn, Turn) and turn.generation == 1:
            state = replayed(file, records[:n])
            turns = [record for record in records[:n] if isinstance(record, Turn)]
            if asked(state.config, turns, turn) != (state.config.model.known_as, 0):
                continue  # another endpoint, or less than usual: an owner begins anew
            assert state.stop is not None or state.request is not None
            if state.request is not None:
                assert state.request.digest == turn.request_digest


@of_this_version
def test_this_version_writes_it_the_same(file: Path) -> None:
    task, *turns = items(file)
    for item, record in zip(turns, records_of(file), strict=True):
        body = wire.to_object(ref(task), record)
        assert body["spec"] == item["spec"]
        for name in ("name", "labels", "ownerReferences"):
            assert body["metadata"][name] == item["metadata"][name]
        if isinstance(record, Turn) and record.results is not None:
            when = datetime.fromisoformat(item["status"]["committedAt"])
            digest = item["spec"]["digest"]
            fields = wire.results_fields(digest, record.reruns, record.results, when)
            assert fields == {name: item["status"][name] for name in fields}


@of_this_version
def test_its_digests_can_be_made_without_ratchet(file: Path) -> None:
    """By the recipe of docs/journal.md: sorted keys, no spaces, UTF-8, SHA-256."""

    def sha256(value: object) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    for item in items(file)[1:]:
        spec, status = dict(item["spec"]), item.get("status", {})
        own = spec.pop("digest")
        assert own == sha256(spec)
        if "digest" in status:
            parts = ("committedAt", "reruns", "results")
            covered = {name: status[name] for name in parts if name in status}
            assert status["digest"] == sha256({"record": own, **covered})


def test_every_shape_is_saved_of_this_version() -> None:
    saved = {file.stem for file in FILES if file.parent == FOLDER}
    assert saved == set(SHAPES), "python -m tests.e2e.journals.save"
    assert {file.parent.name for file in FILES} == {
        f"v{version}" for version in range(1, JOURNAL_VERSION + 1)
    }


def test_the_shapes_hold_what_a_journal_can_hold() -> None:
    records = [record for file in FILES if file.parent == FOLDER for record in records_of(file)]
    turns = [record for record in records if isinstance(record, Turn)]
    results = [result for turn in turns for result in turn.results or ()]
    ends = [record for record in records if not isinstance(record, Start | Turn)]
    assert {turn.reply.verdict for turn in turns} == set(Verdict) - {
        Verdict.REFUSED,
        Verdict.TOO_LARGE,
    }
    assert {result.outcome for result in results} >= {
        Outcome.OK, Outcome.FAILED, Outcome.KILLED, Outcome.NOT_RUN, Outcome.UNKNOWN,
    }  # fmt: skip
    assert {end.outcome for end in ends} == set(EndOutcome)
    assert any(result.truncated and result.spill for result in results)
    assert any(turn.reruns for turn in turns)
    assert any(not turn.complete for turn in turns)
    routed = [record for record in records_of(FOLDER / "routed.json") if isinstance(record, Turn)]
    config = replayed(FOLDER / "routed.json", records_of(FOLDER / "routed.json")).config
    ways = [asked(config, routed[:n], turn) for n, turn in enumerate(routed)]
    assert ways == [("default", 0)] * 4 + [("default", 1), ("backup", 0), ("backup", 0)]
    assert Outcome.DENIED in {result.outcome for result in results}
    assert any(end.patch is not None and end.patch.inline for end in ends)
    assert max(turn.generation for turn in turns) == 2
    assert max(turn.epoch for turn in turns) == 3
