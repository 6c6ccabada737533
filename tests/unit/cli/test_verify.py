"""`ratchet verify`: what it says of what kubectl printed, and with which exit code."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratchet.cli.main import main

from tests.e2e.journals.save import FOLDER
from tests.unit.journal.saved import Object, items, journal, sign_all

ROOT = Path(__file__).resolve().parents[3]
Capture = pytest.CaptureFixture[str]
Change = Callable[[list[Object]], None]


def verify(tmp_path: Path, *found: Object, verbose: bool = False) -> int:
    """Run the command on objects as one list."""
    file = tmp_path / "in.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(found)}))
    return main(["verify", *(["-v"] if verbose else []), str(file)])


def shape(name: str, change: Change = lambda _: None) -> list[Object]:
    """The task and its records, after a change."""
    found = copy.deepcopy(items(FOLDER / f"{name}.json"))
    change(found)
    return found


def test_a_valid_journal_is_summed_up_in_a_sentence(tmp_path: Path, capsys: Capture) -> None:
    task, turns = journal("taken_over")
    assert verify(tmp_path, *turns) == 0
    out = capsys.readouterr().out
    assert out == (
        f"{task} (uid {task.uid}): valid. 3 turns, 4 calls, 0 unknown outcomes, 1 re-run;"
        " ended Succeeded (Finished).\n"
    )


def test_verbose_is_a_line_for_each_record(tmp_path: Path, capsys: Capture) -> None:
    _, turns = journal("taken_over")
    assert verify(tmp_path, *turns, verbose=True) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in lines[:5]] == [
        ["0", "Start", "epoch", "1"],
        ["1", "Turn", "epoch", "1"],
        ["2", "Turn", "epoch", "2"],
        ["3", "Turn", "epoch", "3"],
        ["4", "End", "epoch", "3"],
    ]
    links = [turn.get("status", {}).get("digest") or turn["spec"]["digest"] for turn in turns]
    assert [line[4] for line in lines[:5]] == [link[:12] for link in links]
    assert " ".join(lines[2][5:]) == "Calls write_file Ok (1 re-run), read_file Ok"


def test_a_journal_that_goes_on_is_valid(tmp_path: Path, capsys: Capture) -> None:
    assert verify(tmp_path, *shape("still_open"), verbose=True) == 0
    out = capsys.readouterr().out
    assert "bash open" in out and out.endswith("not ended.\n")


def test_a_broken_journal_is_named_with_all_its_faults(tmp_path: Path, capsys: Capture) -> None:
    task, turns = journal("taken_over")
    turns[2]["status"]["results"][0]["content"] = "It never said that."
    del turns[1]
    assert verify(tmp_path, *turns) == 1
    first, *faults = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{task} (uid {task.uid}): BROKEN, 2 faults.")
    name = f"mend-{task.uid[:8]}"
    assert faults == [
        f"  - AgentTurn {name}-t2 (record 2) was edited: status.digest is not that of its results.",
        f"  - AgentTurn {name}-t1 (record 1) is missing: somebody deleted it.",
    ]


def test_each_task_of_an_input_is_told_apart(tmp_path: Path, capsys: Capture) -> None:
    bad = journal("plain")[1]
    del bad[1]
    found = [*shape("cancelled"), *bad, *journal("repaired")[1]]
    assert verify(tmp_path, *found) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line[0] != " "]
    assert [line.split("): ")[1].split(".")[0] for line in told] == [
        "valid", "BROKEN, 1 fault", "valid",
    ]  # fmt: skip


def test_a_record_that_bears_the_label_of_another_task_is_a_fault_of_that(
    tmp_path: Path, capsys: Capture
) -> None:
    _, turns = journal("plain")
    foreign = journal("cancelled")[1][1]
    foreign["metadata"]["labels"] = turns[1]["metadata"]["labels"]
    assert verify(tmp_path, *turns, foreign) == 1
    assert "(record 1) is of another task" in capsys.readouterr().out


# --- more than the chain -------------------------------------------------------------------------


def a_request_of_another_journal(found: list[Object]) -> None:
    found[2]["spec"]["requestDigest"] = "sha256:" + "0" * 64
    sign_all(found[1:])


def results_that_the_next_request_did_not_show(found: list[Object]) -> None:
    found[2]["status"]["results"][0]["content"] = "It never said that."
    sign_all(found[1:])


def a_patch_of_another_size(found: list[Object]) -> None:
    found[-1]["spec"]["end"]["patch"]["inline"] += " "
    sign_all(found[1:])


def a_status_that_knows_more(found: list[Object]) -> None:
    found[0]["status"]["conditions"] = []
    del found[-2:]


def a_status_of_an_earlier_owner(found: list[Object]) -> None:
    found[0]["status"]["owner"]["epoch"] = 2


def a_status_that_ended_without_an_end(found: list[Object]) -> None:
    found[0]["status"]["turns"] = 3
    del found[-1]


def a_status_with_another_end(found: list[Object]) -> None:
    found[0]["status"]["phase"] = "Failed"


DEEPER: dict[Change, str] = {
    a_request_of_another_journal: "(record 1) answers another request",
    results_that_the_next_request_did_not_show: "(record 2) answers another request",
    a_patch_of_another_size: "(record 4) cannot be had: it is not of its own size and digest",
    a_status_that_knows_more: "(record 3) is missing: somebody deleted it. The status knows of it.",
    a_status_of_an_earlier_owner: "knows of no epoch above 2, and a record was written by epoch 3",
    a_status_that_ended_without_an_end: "The status says that the task has ended, and AgentTurn",
    a_status_with_another_end: "(record 4) says Succeeded, and the status Failed",
}


@pytest.mark.parametrize("change", DEEPER, ids=lambda change: change.__name__)
def test_what_digests_alone_do_not_show_is_found(
    change: Change, tmp_path: Path, capsys: Capture
) -> None:
    assert verify(tmp_path, *shape("taken_over", change)) == 1
    out = capsys.readouterr().out
    assert DEEPER[change] in out and "BROKEN, 1 fault." in out


def test_a_task_that_ended_because_of_its_journal_is_not_blamed_twice(
    tmp_path: Path, capsys: Capture
) -> None:
    def stopped(found: list[Object]) -> None:
        found[0]["status"] |= {"phase": "Failed", "reason": "JournalConflict", "turns": 3}
        del found[-1]

    assert verify(tmp_path, *shape("taken_over", stopped)) == 0
    assert "not ended" in capsys.readouterr().out


def test_a_task_without_a_journal_is_valid(tmp_path: Path, capsys: Capture) -> None:
    task = shape("plain")[0]
    task["status"] = {"phase": "Pending", "observedGeneration": -1}
    assert verify(tmp_path, task) == 0
    assert "0 turns" in capsys.readouterr().out


# --- input ---------------------------------------------------------------------------------------


def test_standard_input_and_several_objects_in_a_row_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    task, *turns = shape("plain")
    text = "\n".join(
        [json.dumps(task), json.dumps({"items": turns[:2]}), *map(json.dumps, turns[2:])]
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["verify", "-"]) == 0
    assert "2 turns" in capsys.readouterr().out


TURN: dict[str, Any] = {"apiVersion": "ratchet.run/v1alpha1", "kind": "AgentTurn"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no AgentTurn in the input"),
        ('{"items": []}', "there is no AgentTurn in the input"),
        ("kind: AgentTurn", "is not JSON"),
        ("[1]", "no object of Kubernetes"),
        ('{"items": 3}', "a list whose items are none"),
        ('{"items": [3]}', "an object of kind None"),
        ('{"apiVersion": "v1", "kind": "Pod"}', "an object of kind Pod"),
        (json.dumps(TURN), "kind AgentTurn that is not whole"),
        (json.dumps({**TURN, "metadata": {"name": "x", "labels": 1}, "spec": {}}), "that is not whole"),
        (json.dumps({**TURN, "metadata": {"name": "x"}, "spec": {}}), "cannot be told apart"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_judged_says_why(
    text: str, says: str, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "in.json"
    file.write_text(text)
    assert main(["verify", str(file)]) == 2
    found = capsys.readouterr()
    assert says in found.err and not found.out


def test_a_file_that_is_not_there_is_named(capsys: Capture) -> None:
    assert main(["verify", "nowhere.json"]) == 2
    assert "nowhere.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("spec", [{"number": "x"}, {"taskRef": 3}, {"reply": []}, {"number": -4}])
def test_a_record_with_senseless_fields_is_a_fault_and_no_crash(
    spec: Object, tmp_path: Path, capsys: Capture
) -> None:
    _, turns = journal("plain")
    turns[1]["spec"] |= spec
    assert verify(tmp_path, *turns) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_a_later_version_is_neither_valid_nor_broken(tmp_path: Path, capsys: Capture) -> None:
    def newer(found: list[Object]) -> None:
        found[-1]["spec"]["journalVersion"] = 99

    assert verify(tmp_path, *shape("plain", newer)) == 2
    assert "not judged, a later version of Ratchet wrote it" in capsys.readouterr().out
    assert verify(tmp_path, *shape("plain", newer), *journal("repaired")[1][1:]) == 1


def test_it_runs_as_a_module_and_needs_no_cluster() -> None:
    file = FOLDER / "plain.json"
    done = subprocess.run(
        [sys.executable, "-m", "ratchet.cli", "verify", str(file)],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert " valid. 2 turns" in done.stdout
