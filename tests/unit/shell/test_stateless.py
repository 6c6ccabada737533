"""kopf is given nothing to write into objects, and nothing to compare."""

from __future__ import annotations

import kopf
from ratchet.shell.stateless import NoDiffBase, NoProgress

BODY = kopf.Body({"metadata": {"name": "mend", "annotations": {"a": "b"}}, "spec": {"goal": "x"}})
RECORD = kopf.ProgressRecord(started="2026-01-01T00:00:00Z")


def test_no_state_of_an_object_is_extracted_or_known() -> None:
    storage = NoDiffBase()
    assert storage.build(body=BODY, extra_fields=["status"]) == {}
    assert storage.fetch(body=BODY) is None


def test_no_progress_of_a_handler_is_known() -> None:
    storage = NoProgress()
    assert storage.fetch(key="task_event", body=BODY) is None
    essence = kopf.BodyEssence({"spec": {"goal": "x"}})
    assert storage.clear(essence=essence) == essence


def test_nothing_is_ever_written_into_an_object() -> None:
    patch = kopf.Patch()
    NoDiffBase().store(body=BODY, patch=patch, essence=kopf.BodyEssence())
    progress = NoProgress()
    progress.store(key="task_event", record=RECORD, body=BODY, patch=patch)
    progress.purge(key="task_event", body=BODY, patch=patch)
    progress.touch(body=BODY, patch=patch, value="now")
    assert not patch
