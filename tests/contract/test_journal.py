"""What every home of a journal keeps, in memory or on an API server (ports.Journals)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from ratchet.core.conditions import Phase, Reason
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.records import (
    Call,
    End,
    EndOutcome,
    Outcome,
    Patch,
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
from ratchet.core.status import Summary, conditions_of_failure, conditions_of_wait
from ratchet.edges.kube import Kube
from ratchet.fakes.journal import Stage
from ratchet.ports import Claim, Journal, JournalAway, OwnershipLost, TaskRef

from tests.contract.journal_homes import DEADLINE_S, GOAL, ClusterHome, FakeHome, Home

NOW = datetime(2026, 3, 1, 12, 0, 0, 700_000, UTC)
HASH = "ab" * 32
ODD = 'é\u0000\u0001\u001f\u007f\u2028\ufeff\uffff𐏿🙂 "\\/<>&\r\n\t '

_T = TypeVar("_T")


@pytest.fixture
async def cluster_home(api: Kube, namespace: str) -> ClusterHome:
    """A namespace that tasks can be created in."""
    home = ClusterHome(api, namespace)
    await home.prepare()
    return home


@pytest.fixture(params=["memory", pytest.param("cluster", marks=pytest.mark.cluster)])
def home(request: pytest.FixtureRequest) -> Home:
    """Both homes in turn."""
    if request.param == "memory":
        return FakeHome()
    found: ClusterHome = request.getfixturevalue("cluster_home")
    return found


async def claimed(home: Home, task: TaskRef, holder: str = "one") -> tuple[Claim, Journal]:
    found = await home.journals.claim(task, holder, NOW)
    assert found is not None
    return found


async def again(action: Callable[[], Awaitable[_T]]) -> _T:
    """What a loop does about a journal that is away: the same again."""
    for _ in range(3):
        try:
            return await action()
        except JournalAway:
            continue
    raise AssertionError("the journal stayed away")


def turn(number: int = 1, text: str = "I look.", **more: object) -> Turn:
    calls = (
        Call(0, "abcdefghi", "bash", '{"command":"ls"}'),
        Call(1, "abcdefghj", "read_file", '{"path":"é"}'),
    )
    reply = Reply(
        Verdict.CALLS,
        text=text,
        calls=calls,
        finish_reason="tool_calls",
        usage=Usage(10, 5, 3, 1),
        model="m",
        endpoint="default",
    )
    whole = Turn(number, 1, 1, "ledger", HASH, "cd" * 32, reply)
    return replace(whole, **more)  # type: ignore[arg-type]


_R = TypeVar("_R", bound=Turn | End)


def after(before: Claim | Record, record: _R) -> _R:
    """A record as the next one of a journal."""
    last = before.records[-1] if isinstance(before, Claim) else before
    return replace(record, previous=turn_hash(last) if isinstance(last, Turn) else last.hash)


async def opened(home: Home, task: TaskRef, text: str = "I look.") -> tuple[Claim, Journal, Turn]:
    """A claim, its journal, and the first turn, which is recorded and has no results yet."""
    claim, journal = await claimed(home, task)
    stored, ours = await journal.append(after(claim, turn(1, text)))
    assert ours and isinstance(stored, Turn)
    return claim, journal, stored


def results(task: TaskRef, content: str = "a\nb\n") -> tuple[Result, ...]:
    return (
        Result(0, f"{task.uid}/1/0", Outcome.OK, content, exit_code=0, duration_ms=12),
        Result(1, f"{task.uid}/1/1", Outcome.FAILED, "", exit_code=-1, truncated=True, spill="/s"),
    )


def rerun(task: TaskRef, number: int = 1) -> Rerun:
    return Rerun(0, f"{task.uid}/1/0/r{number}", "It may not have run.", generation=2)


def end(number: int = 1, outcome: EndOutcome = EndOutcome.CANCELLED) -> End:
    patch = Patch("c" * 40, HASH, 5, "diff ", "text")
    return End(number, 1, HASH, outcome, "Cancelled", "It was.", "did", '{"a":1}', patch)


def summary(
    phase: Phase = Phase.RUNNING, turns: int = 0, lost: int = 0, lost_tokens: int = 0
) -> Summary:
    ended = phase is Phase.FAILED
    make = conditions_of_failure if ended else conditions_of_wait
    reason = Reason.INTERNAL_ERROR if ended else Reason.ACCEPTED
    conditions = make(reason, "It is so.")
    return Summary(
        phase, "Model", reason, "It is so.", turns, 0, Usage(), lost, 0, conditions, None,
        lost_tokens=lost_tokens,
    )  # fmt: skip


# --- claims --------------------------------------------------------------------------------------


async def test_the_first_claim_writes_record_0(home: Home) -> None:
    task = await home.create()
    claim, _ = await claimed(home, task)
    assert (claim.task, claim.epoch, claim.asking, claim.lost_requests) == (task, 1, None, 0)
    assert claim.started == NOW.replace(microsecond=0)
    assert claim.deadline == claim.started + timedelta(seconds=DEADLINE_S)
    assert claim.sandbox == SandboxRef(generation=1)
    (start,) = claim.records
    assert isinstance(start, Start)
    assert (start.epoch, start.config.goal) == (1, GOAL)
    assert len(start.hash) == 64


async def test_a_later_claim_raises_the_epoch_and_keeps_start_and_deadline(home: Home) -> None:
    task = await home.create()
    first, _ = await claimed(home, task)
    found = await home.journals.claim(task, "two", NOW + timedelta(hours=3))
    assert found is not None
    assert found[0] == replace(first, epoch=2)


async def test_a_later_claim_finds_the_journal_in_order(home: Home) -> None:
    task = await home.create()
    first, journal, opening = await opened(home, task)
    done = await journal.record_results(opening, results(task))
    words = replace(turn(2).reply, verdict=Verdict.TEXT, calls=())
    said, _ = await journal.append(after(done, turn(2, reply=words)))
    closed, _ = await journal.append(after(said, end(3)))
    second, _ = await claimed(home, task)
    assert second.records == (first.records[0], done, said, closed)
    assert [r.hash for r in second.records[1:]] == [done.hash, said.hash, closed.hash]


async def test_what_is_not_there_is_not_claimed(home: Home) -> None:
    task = await home.create()
    other = replace(task, uid="0f3c9a1e-5555-4444-8888-121212121212")
    assert await home.journals.claim(other, "one", NOW) is None
    await home.delete(task)
    assert await home.journals.claim(task, "one", NOW) is None


async def test_what_has_ended_is_not_claimed(home: Home) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    await journal.append(after(claim, end(1)))
    assert await home.journals.claim(task, "two", NOW) is not None
    _, journal = await claimed(home, task)
    await journal.summarise(summary(Phase.FAILED))
    assert await home.phase(task) == "Failed"
    assert await home.journals.claim(task, "three", NOW) is None


async def test_a_claim_tells_of_a_cancel(home: Home) -> None:
    task = await home.create()
    assert (await claimed(home, task))[0].cancel is False
    await home.cancel(task)
    assert (await claimed(home, task))[0].cancel is True


async def test_of_two_claims_at_once_the_later_one_owns_the_task(home: Home) -> None:
    task = await home.create()
    pairs = await asyncio.gather(claimed(home, task, "one"), claimed(home, task, "two"))
    loser, winner = sorted(pairs, key=lambda pair: pair[0].epoch)
    assert (loser[0].epoch, winner[0].epoch) == (1, 2)
    assert loser[0].records == winner[0].records
    with pytest.raises(OwnershipLost):
        await loser[1].summarise(summary())
    await winner[1].summarise(summary())


# --- records -------------------------------------------------------------------------------------


async def test_a_record_is_stored_as_it_was_given(home: Home) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    odd = after(claim, turn(1, ODD, reply=replace(turn().reply, verdict=Verdict.TEXT, calls=())))
    stored, ours = await journal.append(odd)
    assert (stored, ours) == (odd, True)
    assert await journal.append(after(stored, end(2))) == (after(stored, end(2)), True)


async def test_the_same_record_twice_is_still_ours(home: Home) -> None:
    task = await home.create()
    _, journal, stored = await opened(home, task)
    assert await journal.append(stored) == (stored, True)


@pytest.mark.parametrize(
    "other", [turn(1, "Another reply."), turn(1, epoch=2), end(1)], ids=["reply", "epoch", "end"]
)
async def test_what_was_written_first_stays(home: Home, other: Turn | End) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    _, rival = await claimed(home, task)
    await journal.append(after(claim, turn()))
    assert await rival.append(after(claim, other)) == (after(claim, turn()), False)


async def test_an_end_shuts_a_late_reply_out(home: Home) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    await journal.append(after(claim, end()))
    assert await journal.append(after(claim, turn())) == (after(claim, end()), False)


async def test_results_are_stored_as_they_were_given(home: Home) -> None:
    task = await home.create()
    _, journal, opening = await opened(home, task)
    given = results(task, ODD)
    stored = await journal.record_results(opening, tuple(reversed(given)))
    assert stored == replace(opening, results=given)


async def test_results_change_the_link_that_the_next_record_carries(home: Home) -> None:
    task = await home.create()
    _, journal, opening = await opened(home, task)
    done = await journal.record_results(opening, results(task))
    assert turn_hash(done) != turn_hash(opening)
    other = await home.create("other")
    _, journal, opening = await opened(home, other)
    assert turn_hash(await journal.record_results(opening, results(other))) != turn_hash(done)


async def test_results_are_written_once(home: Home) -> None:
    task = await home.create()
    _, journal, opening = await opened(home, task)
    first = await journal.record_results(opening, results(task, "first"))
    assert await journal.record_results(opening, results(task, "second")) == first
    _, next_owner = await claimed(home, task)
    assert await next_owner.record_results(opening, results(task, "third")) == first


async def test_a_stale_owner_writes_nothing_into_an_open_turn(home: Home) -> None:
    task = await home.create()
    _, stale, opening = await opened(home, task)
    _, owner = await claimed(home, task)
    with pytest.raises(OwnershipLost):
        await stale.record_results(opening, results(task, "stale"))
    with pytest.raises(OwnershipLost):
        await stale.record_rerun(opening, rerun(task))
    assert (await owner.record_results(opening, results(task, "ours"))).reruns == ()


async def test_a_stale_owner_goes_on_with_nothing_that_it_finds(home: Home) -> None:
    task = await home.create()
    _, _, opening = await opened(home, task)
    _, stale = await claimed(home, task)
    await claimed(home, task)
    with pytest.raises(OwnershipLost):
        await stale.append(opening)


async def test_an_owner_that_takes_a_turn_over_shuts_the_one_out_that_made_it(home: Home) -> None:
    task = await home.create()
    claim, stale = await claimed(home, task)
    _, owner = await claimed(home, task)
    late, ours = await stale.append(after(claim, turn()))
    assert ours and isinstance(late, Turn)
    assert await owner.append(after(claim, turn(1, "Another.", epoch=2))) == (late, False)
    with pytest.raises(OwnershipLost):
        await stale.record_results(late, results(task, "stale"))
    assert (await owner.record_results(late, results(task, "ours"))).complete


async def test_a_turn_keeps_its_reruns(home: Home) -> None:
    task = await home.create()
    _, journal, opening = await opened(home, task)
    once = await journal.record_rerun(opening, rerun(task, 1))
    assert once.reruns == (rerun(task, 1),)
    twice = await journal.record_rerun(once, rerun(task, 2))
    assert twice.reruns == (rerun(task, 1), rerun(task, 2))
    done = await journal.record_results(twice, results(task))
    assert done == replace(twice, results=results(task))
    assert (await claimed(home, task))[0].records[1] == done


async def test_the_same_rerun_is_recorded_once(home: Home) -> None:
    task = await home.create()
    _, journal, opening = await opened(home, task)
    once = await journal.record_rerun(opening, rerun(task))
    assert await journal.record_rerun(opening, rerun(task)) == once
    _, next_owner = await claimed(home, task)
    assert await next_owner.record_rerun(opening, rerun(task)) == once


async def test_no_rerun_is_added_to_a_turn_with_results(home: Home) -> None:
    task = await home.create()
    _, owner, opening = await opened(home, task)
    done = await owner.record_results(opening, results(task))
    assert await owner.record_rerun(opening, rerun(task)) == done


async def test_a_stale_owner_writes_no_results_beside_a_rerun_it_does_not_know(home: Home) -> None:
    task = await home.create()
    _, stale, opening = await opened(home, task)
    _, owner = await claimed(home, task)
    await owner.record_rerun(opening, rerun(task))
    with pytest.raises(OwnershipLost):
        await stale.record_results(opening, results(task))


# --- the status ----------------------------------------------------------------------------------


async def test_the_mark_of_a_request_stays_for_the_next_owner_to_count(home: Home) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    asking = Asking(1, 2, "cd" * 32, lost=1, tokens=500)
    await journal.mark_asking(asking, summary(lost=1, lost_tokens=400))
    for holder in ("two", "three"):
        claim, _ = await claimed(home, task, holder)
        assert (claim.asking, claim.lost_requests, claim.lost_tokens) == (asking, 1, 400)
    assert await home.asking(task) == asking


async def test_the_mark_of_a_request_goes_with_the_summary_that_counts_it(home: Home) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    await journal.mark_asking(Asking(1, 2, "cd" * 32, tokens=500), summary())
    claim, journal = await claimed(home, task, "two")
    await journal.summarise(replace(summary(lost=1, lost_tokens=500), attempt=3))
    assert await home.asking(task) is None
    claim, _ = await claimed(home, task, "three")
    assert (claim.asking, claim.lost_requests, claim.lost_tokens) == (None, 1, 500)


async def test_a_request_whose_reply_is_recorded_is_not_lost(home: Home) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    await journal.mark_asking(Asking(1, 1, "cd" * 32, tokens=500), summary())
    await journal.append(after(claim, turn()))
    claim, _ = await claimed(home, task, "two")
    assert (claim.lost_requests, claim.lost_tokens) == (0, 0)
    assert claim.asking is None or claim.asking.lost == 0


async def test_the_mark_of_a_request_goes_with_the_next_summary(home: Home) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    await journal.mark_asking(Asking(1, 1, "cd" * 32), summary())
    await journal.summarise(summary(turns=0))
    assert await home.asking(task) is not None
    await journal.append(after(claim, turn()))
    await journal.summarise(summary(turns=1))
    assert await home.asking(task) is None


async def test_the_sandbox_is_known_to_the_next_owner(home: Home) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    for sandbox in (SandboxRef(1, "ledger-1", "pod-1"), SandboxRef(2)):
        await journal.set_sandbox(sandbox)
        assert (await claimed(home, task))[0].sandbox == sandbox
        _, journal = await claimed(home, task)


async def test_a_stale_owner_does_not_write_the_status(home: Home) -> None:
    task = await home.create()
    _, stale = await claimed(home, task)
    await claimed(home, task)
    await refused_everywhere(stale)


async def test_the_status_of_a_deleted_task_is_not_written(home: Home) -> None:
    task = await home.create()
    _, stale = await claimed(home, task)
    await home.delete(task)
    await refused_everywhere(stale)


async def test_a_task_created_again_under_the_same_name_is_another_one(home: Home) -> None:
    task = await home.create("same")
    _, stale = await claimed(home, task)
    await home.delete(task)
    await claimed(home, await home.create("same"))
    await refused_everywhere(stale)
    assert await home.journals.claim(task, "two", NOW) is None


async def refused_everywhere(stale: Journal) -> None:
    with pytest.raises(OwnershipLost):
        await stale.summarise(summary(turns=1))
    with pytest.raises(OwnershipLost):
        await stale.mark_asking(Asking(1, 1, HASH), summary())
    with pytest.raises(OwnershipLost):
        await stale.set_sandbox(SandboxRef(2))


# --- lost requests and lost answers --------------------------------------------------------------

STAGES = pytest.mark.parametrize("stage", list(Stage), ids=["request", "answer"])


@STAGES
async def test_a_claim_survives_a_cut_connection(home: Home, stage: Stage) -> None:
    task = await home.create()
    home.cuts.cut("claim", stage)
    claim, journal = await again(lambda: claimed(home, task))
    assert isinstance(claim.records[0], Start)
    await journal.summarise(summary())


@STAGES
async def test_a_record_is_ours_after_a_cut_connection(home: Home, stage: Stage) -> None:
    task = await home.create()
    claim, journal = await claimed(home, task)
    home.cuts.cut("append", stage)
    first = after(claim, turn())
    assert await again(lambda: journal.append(first)) == (first, True)
    assert len((await claimed(home, task))[0].records) == 2


@STAGES
async def test_results_are_there_once_after_a_cut_connection(home: Home, stage: Stage) -> None:
    task = await home.create()
    _, journal, opening = await opened(home, task)
    home.cuts.cut("record_rerun", stage)
    rerunning = await again(lambda: journal.record_rerun(opening, rerun(task)))
    assert rerunning.reruns == (rerun(task),)
    home.cuts.cut("record_results", stage)
    done = await again(lambda: journal.record_results(rerunning, results(task)))
    assert done == replace(rerunning, results=results(task))


@STAGES
@pytest.mark.parametrize("operation", ["mark_asking", "set_sandbox", "summarise"])
async def test_the_status_is_right_after_a_cut_connection(
    home: Home, operation: str, stage: Stage
) -> None:
    task = await home.create()
    _, journal = await claimed(home, task)
    actions = {
        "mark_asking": lambda: journal.mark_asking(Asking(1, 1, HASH), summary()),
        "set_sandbox": lambda: journal.set_sandbox(SandboxRef(1, "ledger")),
        "summarise": lambda: journal.summarise(summary()),
    }
    home.cuts.cut(operation, stage)
    for action in actions.values():
        await again(action)
    assert await home.asking(task) == Asking(1, 1, HASH)
    assert await home.phase(task) == "Running"
    assert (await claimed(home, task))[0].sandbox == SandboxRef(1, "ledger")
    assert not home.cuts.waiting
