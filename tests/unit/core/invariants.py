"""What must be true of every task, whatever went wrong on its way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

from ratchet.core import events as e
from ratchet.core.conditions import TERMINAL_PHASES, Phase
from ratchet.core.config import Config, UnknownPolicy
from ratchet.core.evolve import begin
from ratchet.core.evolve.model import MAX_SQUEEZE
from ratchet.core.facts import SandboxRef
from ratchet.core.keys import call_key
from ratchet.core.records import End, Outcome, Record, Start, Turn, turn_hash
from ratchet.core.tools import CATALOGUE, Effect
from ratchet.core.transcript import request_after, told
from ratchet.fakes.clock import BEGIN
from ratchet.fakes.gate import OpenGate
from ratchet.fakes.model import FakeModel
from ratchet.ports import TaskRef

RAN = {Outcome.OK, Outcome.FAILED, Outcome.KILLED, Outcome.TIMED_OUT, Outcome.STILL_RUNNING}


class Shown(Protocol):
    """What the status said at some moment."""

    @property
    def phase(self) -> Phase: ...
    @property
    def reason(self) -> str: ...
    @property
    def turns(self) -> int: ...
    @property
    def lost_requests(self) -> int: ...


class Begun(Protocol):
    """A call that really began, and what the journal said at that moment."""

    @property
    def key(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def journal(self) -> tuple[Record, ...]: ...


class Stored(Protocol):
    """A task as it is stored."""

    @property
    def ref(self) -> TaskRef: ...
    @property
    def config(self) -> Config: ...
    @property
    def epoch(self) -> int: ...
    @property
    def journal(self) -> tuple[Record, ...]: ...
    @property
    def summary(self) -> Shown | None: ...


class Witness(Protocol):
    """All that was seen of one task."""

    @property
    def task(self) -> Stored: ...
    @property
    def model(self) -> FakeModel: ...
    @property
    def effects(self) -> Sequence[Begun]: ...
    @property
    def heads(self) -> Sequence[tuple[Record, ...]]: ...
    @property
    def summaries(self) -> Sequence[Shown]: ...
    def events(self, kind: type[e.Event]) -> list[Any]: ...


class Broken(AssertionError):
    """A promise is broken. `promise` is a field of the proof's Findings."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(text)
        self.promise = promise


def check_all(world: Witness) -> None:
    """Everything below, of a task that has ended. Raises Broken."""
    for promise, check in CHECKS:
        try:
            check(world)
        except AssertionError as error:
            raise Broken(promise, f"{check.__name__}: {error}") from error


def each_key_ran_at_most_once(world: Witness) -> None:
    twice = [key for key, n in Counter(effect.key for effect in world.effects).items() if n > 1]
    assert not twice, f"ran more than once: {twice}"


def no_call_ran_before_it_was_recorded(world: Witness) -> None:
    for effect in world.effects:
        turn = _turn_of(effect.journal, effect.key)
        assert turn is not None, f"{effect.key} ran before its turn was recorded"
        assert turn.results is None, f"{effect.key} ran after the results of its turn were recorded"
        keys = {call_key(world.task.ref.uid, turn.number, c.index) for c in turn.reply.calls}
        keys |= {rerun.key for rerun in turn.reruns}
        assert effect.key in keys, f"{effect.key} ran again before that was recorded"
        assert not isinstance(effect.journal[-1], End), f"{effect.key} ran after the end"


def reruns_are_allowed(world: Witness) -> None:
    for turn in _turns(world.task.journal):
        for rerun in turn.reruns:
            call = turn.reply.calls[rerun.index]
            effect = CATALOGUE[call.tool].effect
            harmless = effect in (Effect.PURE, Effect.IDEMPOTENT, Effect.CHECKED)
            asked_for = world.task.config.on_unknown is UnknownPolicy.RETRY
            assert harmless or asked_for, f"{rerun.key} may not be repeated"


def journal_is_a_chain(world: Witness) -> None:
    journal = world.task.journal
    assert [record.number for record in journal] == list(range(len(journal)))
    start = journal[0]
    assert isinstance(start, Start)
    head = start.hash
    for record in journal[1:]:
        assert isinstance(record, Turn | End)
        assert record.previous == head, f"record {record.number} does not follow"
        if isinstance(record, Turn):
            assert record.complete, f"turn {record.number} was left open"
            head = turn_hash(record)
    assert isinstance(journal[-1], End), "the journal has no end"


def journal_only_grew(world: Witness) -> None:
    final = world.task.journal
    for head in world.heads:
        assert len(head) <= len(final)
        for seen, record in zip(head, final, strict=False):
            assert _is_prefix(seen, record), f"record {record.number} was changed"


def results_tell_the_truth(world: Witness) -> None:
    """What is recorded as run did run, what is recorded as not run did not; else it says unknown."""
    ran = {effect.key for effect in world.effects}
    for turn in _turns(world.task.journal):
        for result in turn.results or ():
            call = turn.reply.calls[result.index]
            if call.tool in ("todo", "finish"):
                continue
            first = call_key(world.task.ref.uid, turn.number, result.index)
            keys = {first} | {r.key for r in turn.reruns if r.index == result.index}
            assert result.key in keys
            if result.outcome in RAN:
                assert ran & keys, f"{result.key} is recorded as {result.outcome} and never ran"
            elif result.outcome is not Outcome.UNKNOWN:
                assert not ran & keys, f"{result.key} is recorded as {result.outcome} and ran"


def every_request_follows_from_the_journal(world: Witness) -> None:
    turns = _turns(world.task.journal)
    config = world.task.config
    for turn in turns:
        before = turns[: turn.number - 1]
        [model] = [one for one in config.endpoints if one.known_as == turn.reply.endpoint]
        history = told(config, before, model)
        rebuilt = (
            request_after(config, history, turn.generation, model, squeeze).digest
            for squeeze in range(MAX_SQUEEZE + 1)
        )
        assert turn.request_digest in rebuilt, f"turn {turn.number} answers something else"


def attempts_have_ids_of_their_own(world: Witness) -> None:
    twice = [rid for rid, n in Counter(r.rid for r in world.model.seen).items() if n > 1]
    assert not twice, f"two attempts had one id: {twice}"


def the_end_is_shown_and_stays(world: Witness) -> None:
    end = world.task.journal[-1]
    assert isinstance(end, End)
    summary = world.task.summary
    assert summary is not None and summary.reason == end.reason, f"{summary} shows not {end}"
    assert summary.phase in TERMINAL_PHASES
    for before, after in pairwise(world.summaries):
        then = f"{after} follows {before}"
        assert after.turns >= before.turns, f"turns were taken back: {then}"
        assert after.lost_requests >= before.lost_requests, f"losses were taken back: {then}"
        if before.phase in TERMINAL_PHASES:
            same = (after.phase, after.reason) == (before.phase, before.reason)
            assert same, f"an end was taken back: {then}"


def one_sandbox_at_a_time(world: Witness) -> None:
    generations = [effect.generation for effect in world.effects]
    assert generations == sorted(generations), "an older sandbox ran something after a newer one"


def every_prefix_replays(world: Witness) -> None:
    journal = world.task.journal
    for length in range(1, len(journal) + 1):
        state = begin(
            task_uid=world.task.ref.uid, epoch=world.task.epoch + 1, started=BEGIN, deadline=None,
            cancelled=False, asking=None, lost_requests=0,
            sandbox=SandboxRef(max((t.generation for t in _turns(journal[:length])), default=1)),
            records=journal[:length],
        )  # fmt: skip
        assert not state.broken
        assert len(state.turns) == len(_turns(journal[:length]))


CHECKS: tuple[tuple[str, Callable[[Witness], None]], ...] = (
    ("repeated", each_key_ran_at_most_once),
    ("lost", no_call_ran_before_it_was_recorded),
    ("repeated", reruns_are_allowed),
    ("holes", journal_is_a_chain),
    ("holes", journal_only_grew),
    ("unknown_silent", results_tell_the_truth),
    ("holes", every_request_follows_from_the_journal),
    ("uncounted", attempts_have_ids_of_their_own),
    ("holes", the_end_is_shown_and_stays),
    ("repeated", one_sandbox_at_a_time),
    ("holes", every_prefix_replays),
)


def places_are_given_back(gate: OpenGate) -> None:
    """Each place at an endpoint was given back, and once, when all that ran has ended."""
    assert not gate.inside and not gate.waiting, f"still there: {gate.inside}, {gate.waiting}"
    returns = [len(permit.returns) for permit in gate.given]
    assert set(returns) <= {1}, f"places were given back so often: {returns}"


def spend_is_counted(world: Witness, *, waits: int = 0, never_came: int = 0) -> None:
    """Requests sent = recorded replies + lost ones + those that the server had no room for.

    A request that was given up on its way there, or that `never_came`, is counted too, so there may
    be fewer. Only of a task whose owner was never lost: see `no_request_is_free`.
    """
    seen, counted = _spend(world, waits)
    early = len(world.events(e.AskWithdrawn))
    assert counted - early - never_came <= seen <= counted, f"{seen} seen, {counted} counted"


def no_request_is_free(world: Witness, *, waits: int = 0) -> None:
    """What the model was asked is recorded or counted as lost, whoever was lost meanwhile.

    More may be counted than was asked: the reply that an owner was lost with may be recorded after
    the next owner has counted it.
    """
    seen, counted = _spend(world, waits)
    assert seen <= counted, f"{seen} seen, only {counted} counted"


def _spend(world: Witness, waits: int) -> tuple[int, int]:
    """Requests that the model saw, and those that the task knows of."""
    summary = world.task.summary
    assert summary is not None
    recorded = len(_turns(world.task.journal))
    return len(world.model.seen), recorded + summary.lost_requests + waits


def _turns(journal: tuple[Record, ...]) -> list[Turn]:
    return [record for record in journal if isinstance(record, Turn)]


def _turn_of(journal: tuple[Record, ...], key: str) -> Turn | None:
    number = int(key.split("/")[1])
    return next((turn for turn in _turns(journal) if turn.number == number), None)


def _is_prefix(seen: Record, record: Record) -> bool:
    if not isinstance(seen, Turn) or not isinstance(record, Turn):
        return seen == record
    if seen.results is not None:
        return seen == record
    same = seen.reruns == record.reruns[: len(seen.reruns)]
    return same and (seen.number, seen.reply, seen.epoch, seen.previous) == (
        record.number, record.reply, record.epoch, record.previous
    )  # fmt: skip
