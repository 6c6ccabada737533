"""Names of objects: deterministic, short enough, and unlike those of another task."""

import re

import pytest
from ratchet.api import names

UID = "0f3c9a1e-5555-4444-8888-121212121212"


def test_a_record_is_named_after_task_uid_and_number() -> None:
    assert names.turn_name("fix-it", UID, 0) == "fix-it-0f3c9a1e-t0"
    assert names.turn_name("fix-it", UID, 12) == "fix-it-0f3c9a1e-t12"


def test_a_sandbox_is_named_after_task_uid_and_generation() -> None:
    assert names.sandbox_name("fix-it", UID, 2) == "fix-it-0f3c9a1e-g2"


def test_a_task_made_again_under_the_same_name_gets_other_records() -> None:
    other = "1" + UID[1:]
    assert names.turn_name("fix-it", UID, 1) != names.turn_name("fix-it", other, 1)


def test_the_longest_task_name_leaves_room_for_every_suffix() -> None:
    task = "a" * names.TASK_NAME_MAX
    assert len(names.turn_name(task, UID, 10**9)) <= names.OBJECT_NAME_MAX
    assert len(names.sandbox_name(task, UID, 10**9)) <= names.OBJECT_NAME_MAX


def test_a_longer_task_name_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 200 characters"):
        names.turn_name("a" * 201, UID, 1)


@pytest.mark.parametrize("uid", ["", "0f3c"])
def test_an_object_without_a_uid_is_not_stored_and_gets_no_names(uid: str) -> None:
    with pytest.raises(ValueError, match="uid"):
        names.turn_name("fix-it", uid, 1)


def test_numbers_start_where_the_journal_and_the_sandboxes_do() -> None:
    with pytest.raises(ValueError, match="from 0"):
        names.turn_name("fix-it", UID, -1)
    with pytest.raises(ValueError, match="from 1"):
        names.sandbox_name("fix-it", UID, 0)


def test_labels_are_within_what_kubernetes_takes() -> None:
    labels = names.turn_labels(UID, number=3, kind="Turn") | names.sandbox_labels(UID, generation=1)
    for key, value in labels.items():
        assert re.fullmatch(r"([a-z0-9.-]+/)?[a-z0-9-]{1,63}", key), key
        assert re.fullmatch(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?", value), value


def test_a_selector_finds_what_the_labels_mark() -> None:
    selector = names.task_selector(UID, component=names.COMPONENT_SANDBOX)
    wanted = dict(part.split("=") for part in selector.split(","))
    assert wanted.items() <= names.sandbox_labels(UID, generation=1).items()
    assert not wanted.items() <= names.turn_labels(UID, number=1, kind="Turn").items()
