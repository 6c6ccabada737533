"""Records as AgentTurn objects: what is read back is what was written, and nothing else passes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.api.turn import AgentTurn
from ratchet.core.config import Config, File, ModelConfig, Resources, SandboxConfig
from ratchet.core.records import (
    Call,
    End,
    EndOutcome,
    Outcome,
    Patch,
    PatchPart,
    Record,
    Reply,
    Rerun,
    Result,
    Start,
    Turn,
    Verdict,
    turn_hash,
)
from ratchet.core.replies import Usage
from ratchet.edges import digests, wire
from ratchet.ports import TaskRef

COMMITTED = datetime(2026, 3, 1, 12, tzinfo=UTC)
TASK = TaskRef("space", "task", "0f3c9a1e-5555-4444-8888-121212121212")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
word = st.text("abcXYZ_09", min_size=1, max_size=20)
digest = st.text("0123456789abcdef", min_size=64, max_size=64)
count = st.integers(0, 2**53 - 1)
indices = st.integers(0, 31)
calls = st.builds(Call, indices, word, word, text)
usages = st.builds(Usage, count, count, count, count)
replies = st.builds(
    Reply,
    verdict=st.sampled_from(Verdict),
    text=text,
    note=text,
    reasoning=text,
    calls=st.lists(calls, max_size=4).map(tuple),
    finish_reason=text,
    usage=usages,
    model=text,
    endpoint=text,
    attempt=st.integers(1, 9),
    raw=text,
)
results = st.builds(
    Result,
    index=indices,
    key=word,
    outcome=st.sampled_from(Outcome),
    content=text,
    exit_code=st.none() | st.integers(-1024, 1024),
    truncated=st.booleans(),
    spill=text,
    duration_ms=count,
    not_utf8=st.booleans(),
)
reruns = st.builds(Rerun, indices, word, text, count)
turns = st.builds(
    Turn,
    number=st.integers(1, 1000),
    epoch=count,
    generation=count,
    ledger=text,
    previous=digest,
    request_digest=digest,
    reply=replies,
    reruns=st.lists(reruns, max_size=3).map(tuple),
    results=st.none() | st.lists(results, max_size=3).map(tuple),
)
part_names = st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True)
patches = st.builds(
    Patch,
    base=text,
    sha256=digest,
    size=count,
    inline=text,
    encoding=st.sampled_from(["text", "base64"]),
    upstream_commit=text,
    parts=st.lists(st.builds(PatchPart, part_names, st.integers(1, 10**6)), max_size=3).map(tuple),
)
ends = st.builds(
    End,
    number=st.integers(1, 1000),
    epoch=count,
    previous=digest,
    outcome=st.sampled_from(EndOutcome),
    reason=word,
    message=text,
    summary=text,
    result=text,
    patch=st.none() | patches,
)
configs = st.builds(
    Config,
    goal=text,
    model=st.builds(ModelConfig, word, word, word, temperature=st.none() | st.floats(0, 2)),
    sandbox=st.builds(
        SandboxConfig,
        word,
        st.builds(Resources, st.lists(st.tuples(word, word), max_size=2).map(tuple)),
    ),
    files=st.lists(st.builds(File, word, st.none() | text), max_size=2).map(tuple),
    active_deadline_s=st.none() | st.integers(1, 1000),
)


def through_the_api_server(record: Record) -> dict[str, Any]:
    """The object as it comes back: as JSON, with the status that later writes would add."""
    body = wire.to_object(TASK, record)
    if isinstance(record, Turn):
        status: dict[str, Any] = {}
        if record.reruns:
            status["reruns"] = wire.reruns_to_list(record.reruns)
        if record.results is not None:
            digest = body["spec"]["digest"]
            status |= wire.results_fields(digest, record.reruns, record.results, COMMITTED)
        body |= {"status": status} if status else {}
    found: dict[str, Any] = json.loads(json.dumps(body))
    return found


@given(turns)
def test_a_turn_is_read_as_it_was_written(turn: Turn) -> None:
    body = through_the_api_server(turn)
    found = wire.from_object(TASK, body)
    assert isinstance(found, Turn)
    assert found == turn
    last = body["spec"] if turn.results is None else body["status"]
    assert turn_hash(found) == last["digest"]


@given(ends)
def test_an_end_is_read_as_it_was_written(end: End) -> None:
    assert wire.from_object(TASK, through_the_api_server(end)) == end


@given(configs, count)
def test_a_start_is_read_as_it_was_written_with_its_digest(config: Config, epoch: int) -> None:
    body = through_the_api_server(Start(config, epoch))
    assert wire.from_object(TASK, body) == Start(config, epoch, body["spec"]["digest"])


SAMPLE = Turn(
    3, 2, 1, "ledger", "ab" * 32, "cd" * 32,
    Reply(Verdict.CALLS, calls=(Call(0, "abcdefghi", "bash", "{}"),)),
)  # fmt: skip


DONE = replace(
    SAMPLE,
    reruns=(Rerun(0, "k", "r", 1),),
    results=(Result(0, "k", Outcome.OK, "c", 1, True, "s", 1, True),),
)


def with_its_digest(body: dict[str, Any]) -> dict[str, Any]:
    """What somebody would make who knows how digests are made."""
    body["spec"]["digest"] = digests.of_spec(body["spec"])
    return body


def test_what_is_at_its_default_is_not_written() -> None:
    spec = wire.to_object(TASK, replace(SAMPLE, ledger=""))["spec"]
    assert set(spec["reply"]) == {"verdict", "calls"}
    assert "ledger" not in spec


def test_every_name_that_is_written_is_one_of_the_api() -> None:
    full = replace(
        SAMPLE,
        reply=replace(
            SAMPLE.reply, text="t", note="n", reasoning="r", finish_reason="f", usage=Usage(1, 1, 1, 1),
            model="m", endpoint="e", attempt=2, raw="r",
        ),
        reruns=(Rerun(0, "k", "r", 1),),
        results=(Result(0, "k", Outcome.OK, "c", 1, True, "s", 1, True),),
    )  # fmt: skip
    body = through_the_api_server(full)
    parsed = AgentTurn.model_validate(body).model_dump(
        mode="json", by_alias=True, exclude_unset=True
    )
    assert {"spec": body["spec"], "status": body["status"]} == {
        "spec": parsed["spec"],
        "status": parsed["status"],
    }


def spoiled(**changes: Any) -> dict[str, Any]:
    """A stored turn with some of its parts exchanged, by path."""
    body = through_the_api_server(DONE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = body
        for parent in parents:
            place = place[parent]
        place[last] = value
    return body


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spec__taskRef": {"name": "task", "uid": "another"}}, "of another task"),
        ({"metadata__ownerReferences": []}, "has nobody as its owner"),
        ({"metadata__labels": {}}, "has nothing as label"),
        ({"spec__taskRef": {"name": "other", "uid": TASK.uid}}, "of a task other"),
        ({"metadata__name": "task-0f3c9a1e-t4"}, "has the number of task-0f3c9a1e-t3"),
        ({"metadata__deletionTimestamp": "2026-01-01T00:00:00Z"}, "is being deleted"),
        ({"spec__reply": {"verdict": "Perhaps"}}, "spec.reply.verdict"),
        ({"spec__number": "three"}, "spec.number"),
        ({"spec__reply": {"verdict": "Text", "text": "I never said that."}}, "spec.digest"),
        ({"spec__previous": "ef" * 32}, "spec.digest"),
        ({"spec__epoch": 7}, "spec.digest"),
        ({"spec__journalVersion": 1, "spec__later": True}, "spec.digest"),
        ({"spec__digest": None}, "has no digest"),
        ({"status__results": []}, "status.digest"),
        ({"status__committedAt": "2026-03-01T12:00:01Z"}, "status.digest"),
        ({"status__reruns": []}, "status.digest"),
        ({"status__digest": None}, "status.digest"),
        ({"status__results": None}, "its results are gone"),
    ],
)  # fmt: skip
def test_what_is_no_record_of_the_task_is_refused_in_words(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(wire.Unreadable, match=says):
        wire.from_object(TASK, spoiled(**changes))


def test_an_owner_reference_that_does_not_control_is_not_enough() -> None:
    body = through_the_api_server(SAMPLE)
    body["metadata"]["ownerReferences"][0]["controller"] = False
    with pytest.raises(wire.Unreadable, match="has nobody as its owner"):
        wire.from_object(TASK, body)


def test_an_owner_that_is_another_task_is_named() -> None:
    body = through_the_api_server(SAMPLE)
    body["metadata"]["ownerReferences"][0]["uid"] = "another"
    with pytest.raises(wire.Unreadable, match="has another as its owner, not its task"):
        wire.from_object(TASK, body)


def test_the_sentence_names_the_record() -> None:
    with pytest.raises(wire.Unreadable, match=r"^AgentTurn task-0f3c9a1e-t3 \(record 3\) was edit"):
        wire.from_object(TASK, spoiled(spec__epoch=7))


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("kind", "End", "not just the part that its kind"),
        ("reply", {"verdict": "Calls", "calls": [{
            "index": 0, "id": "x", "tool": "bash", "arguments": "{}",
            "digest": "sha256:" + "0" * 64}]}, "a call 0 whose digest is of something else"),
    ],
)  # fmt: skip
def test_what_was_never_a_record_is_refused_though_its_digest_fits(
    part: str, value: Any, says: str
) -> None:
    body = through_the_api_server(SAMPLE)
    body["spec"][part] = value
    with pytest.raises(wire.Unreadable, match=says):
        wire.from_object(TASK, with_its_digest(body))


def test_a_digest_is_of_what_is_stored_and_not_of_what_this_version_knows() -> None:
    body = through_the_api_server(SAMPLE)
    body["spec"]["reply"]["later"] = "A field of a later version."
    assert wire.from_object(TASK, with_its_digest(body)) == SAMPLE


def test_text_that_is_no_utf8_breaks_nothing() -> None:
    with pytest.raises(wire.Unreadable, match=r"spec\.digest"):
        wire.from_object(TASK, spoiled(spec__later="\ud800"))


def test_a_record_of_a_later_version_asks_for_a_newer_operator() -> None:
    with pytest.raises(wire.NewerJournal, match="run a newer operator"):
        wire.from_object(TASK, spoiled(spec__journalVersion=99, spec__reply={"new": True}))


def test_a_configuration_that_cannot_be_read_is_refused() -> None:
    body = wire.to_object(
        TASK, Start(Config("g", ModelConfig("e", "u", "m"), SandboxConfig("i")), 1)
    )
    body["spec"]["start"]["config"] = '{"goal": 1}'
    with pytest.raises(wire.Unreadable, match="configuration that cannot be read"):
        wire.from_object(TASK, with_its_digest(body))


def test_times_are_written_in_utc() -> None:
    noon = datetime(2026, 3, 1, 12, 0, 0, 999_999, timezone(timedelta(hours=2)))
    assert wire.rfc3339(noon) == "2026-03-01T10:00:00Z"
    assert datetime.fromisoformat(wire.rfc3339(noon)) == noon.replace(microsecond=0).astimezone(UTC)
