"""Names and digests are the same for whoever computes them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from ratchet.core import keys

UID = "11111111-2222-3333-4444-555555555555"


def test_a_key_names_task_turn_and_call_and_counts_reruns() -> None:
    assert keys.call_key(UID, 3, 0) == f"{UID}/3/0"
    assert keys.call_key(UID, 3, 0, 2) == f"{UID}/3/0/r2"


def test_a_digest_covers_tool_and_arguments() -> None:
    one = keys.call_digest("bash", '{"command":"ls"}')
    assert one.startswith("sha256:") and len(one) == 7 + 64
    assert one != keys.call_digest("grep", '{"command":"ls"}')
    assert one != keys.call_digest("bash", '{"command":"ls "}')


def test_ids_for_the_model_are_nine_alphanumerics_and_differ_between_calls() -> None:
    ids = {keys.call_id(UID, turn, index) for turn in range(1, 40) for index in range(32)}
    assert len(ids) == 39 * 32
    assert all(len(i) == 9 and i.isalnum() and i.isascii() for i in ids)


def test_attempts_of_different_owners_have_different_ids() -> None:
    assert keys.request_id(UID, 1, 1, 1) != keys.request_id(UID, 1, 1, 2)
    assert keys.request_id(UID, 1, 11, 1) != keys.request_id(UID, 11, 1, 1)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_canonical_text_does_not_depend_on_order(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert keys.canonical(value) == keys.canonical(turned)
    assert json.loads(keys.canonical(value)) == value


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_clean_text_is_utf8_and_stays_as_it_is(text: str) -> None:
    cleaned = keys.clean(text)
    cleaned.encode("utf-8")
    assert keys.clean(cleaned) == cleaned
