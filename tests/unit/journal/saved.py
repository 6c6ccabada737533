"""The journals that earlier runs left: `tests/data/journals/v<version>/<shape>.json`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from ratchet.edges import digests
from ratchet.ports import TaskRef

from tests.e2e.journals.save import FOLDER

Object = dict[str, Any]
FILES = sorted(FOLDER.parent.glob("v*/*.json"))


def items(file: Path) -> list[Object]:
    """The objects that kubectl printed: the task first, then its journal in order."""
    found: list[Object] = json.loads(file.read_text("utf-8"))["items"]
    return sorted(found, key=lambda item: item["spec"].get("number", -1))


def journal(shape: str) -> tuple[TaskRef, list[Object]]:
    """A journal of the present version, to be spoiled."""
    task, *turns = items(FOLDER / f"{shape}.json")
    return ref(task), copy.deepcopy(turns)


def ref(task: Object) -> TaskRef:
    meta = task["metadata"]
    return TaskRef(meta["namespace"], meta["name"], meta["uid"])


def sign(turn: Object) -> None:
    """Make the digests of a changed record fit again."""
    turn["spec"]["digest"] = digests.of_spec(turn["spec"])
    if "digest" in turn.get("status", {}):
        turn["status"]["digest"] = digests.of_results(turn["spec"]["digest"], turn["status"])


def sign_all(turns: list[Object]) -> None:
    """What a forger would do: new digests, and new links from record to record."""
    for before, turn in zip([None, *turns], turns, strict=False):
        if before is not None:
            turn["spec"]["previous"] = (
                before.get("status", {}).get("digest") or (before["spec"]["digest"])
            )
        sign(turn)
