"""Faults that can be put into the operator and the sandbox's server on purpose.

Each is a small change of behaviour, made inside the process that is to be wrong: nothing in the
product knows of it. Who has to notice is said in `tests.proof.mutants`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from ratchet.api import names
from ratchet.core import commands as c
from ratchet.core import loop, policy, records
from ratchet.core.conditions import TERMINAL_PHASES
from ratchet.core.evolve import calls, chain, dispatch, journal, sandbox
from ratchet.core.facts import Asking, Receipt
from ratchet.core.records import End, Outcome, Result, Turn
from ratchet.core.state import State, missing
from ratchet.core.status import Summary
from ratchet.core.tools import CATALOGUE, Effect
from ratchet.edges import checking, claim, kube, taskstatus
from ratchet.edges import journal as journals
from ratchet.edges.answers import FAILURES, Meaning, away, find, meaning
from ratchet.edges.journal import KubeJournal
from ratchet.ports import JournalAway, TaskRef
from ratchet.shell.runner import Runner
from ratchet_sandbox import protocol
from ratchet_sandbox.protocol import Meta
from ratchet_sandbox.server.calls import Calls, Submission
from ratchet_sandbox.server.ledger import Call, Ledger, Record

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


# --- the loop ------------------------------------------------------------------------------------


def results_before_the_effect(patch: Patch) -> None:
    """Results are recorded while their calls still run."""
    record = loop._record

    def hasty(state: State) -> Iterator[c.Command]:
        turn = state.open_turn
        if turn is None or not missing(state):
            yield from record(state)
            return
        done = (
            Result(call.index, turn.current_key(state.task_uid, call.index), Outcome.OK, "done")
            for call in missing(state)
        )
        yield c.StoreResults(turn.number, turn, (*state.known, *done))

    patch.setattr(loop, "_record", hasty)


def tool_before_the_replys_commit(patch: Patch) -> None:
    """A call is sent while the record of its reply is being created."""
    run_calls = loop._run_calls

    def hasty(state: State) -> Iterator[c.Command]:
        for wish in loop._record(state):
            if isinstance(wish, c.StoreTurn):
                yield from run_calls(journal.turn_stored(state, wish.turn))
        yield from run_calls(state)

    patch.setattr(loop, "_run_calls", hasty)


def no_generation_check(patch: Patch) -> None:
    """A new sandbox is asked for the calls of a lost one, as if it had its ledger."""
    patch.setattr(sandbox, "_doubt", lambda state, _turn: state)
    patch.setattr(journal, "doubt_earlier_generations", lambda state, _turn: state)


def key_without_the_turn(patch: Patch) -> None:
    """The first calls of all turns have one key."""

    def short(task_uid: str, _turn: int, index: int, rerun: int = 0) -> str:
        key = f"{task_uid}/1/{index}"
        return f"{key}/r{rerun}" if rerun else key

    for module in (records, policy):
        patch.setattr(module, "call_key", short)


def no_digest_check_of_the_early_answer(patch: Patch) -> None:
    """An answer to what an owner took for the results is recorded after other results."""

    def trusting(state: State, turn: Turn) -> State:
        answer = state.answer
        state = journal.results_stored(state, turn)
        if answer is None or state.answer is not None or state.request is None:
            return state
        return replace(state, answer=replace(answer, digest=state.request.digest))

    patch.setattr(dispatch, "results_stored", trusting)


def every_call_is_repeated(patch: Patch) -> None:
    """All tools are taken for pure."""
    pure = {name: replace(tool, effect=Effect.PURE) for name, tool in CATALOGUE.items()}
    patch.setattr(policy, "CATALOGUE", pure)


def unknown_is_taken_for_done(patch: Patch) -> None:
    """A call whose end nobody knows is recorded as ended well."""
    known = calls._outcome

    def hopeful(receipt: Receipt) -> Outcome:
        found = known(receipt)
        return Outcome.OK if found is Outcome.UNKNOWN else found

    patch.setattr(calls, "_outcome", hopeful)


def attempts_share_an_id(patch: Patch) -> None:
    """A request that was given up is not counted."""

    def forget(self: Runner, wishes: tuple[c.Command, ...]) -> bool:
        for command, task in list(self._under_way.items()):
            if command.interruptible and command not in wishes:
                del self._under_way[command]
                self._drop(task)
        return False

    patch.setattr(Runner, "_withdraw", forget)


# --- the journal ---------------------------------------------------------------------------------


def blind_retry_on_409(patch: Patch) -> None:
    """A write that lost a race is sent again over whatever is there now."""

    async def blind(
        self: KubeJournal,
        turn: Turn,
        fields: Callable[[Turn, journals.Seen], dict[str, Any]],
        _unless: Callable[[Turn], bool],
    ) -> Turn:
        name = names.turn_name(self._task.name, self._task.uid, turn.number)
        path = kube.turn(self._task.namespace, name)
        for _ in range(journals.TRIES):
            try:
                found = self._seen.pop(turn.number, None)
                seen = found or journals.Seen.of(await self._api.request("GET", path))
                write = journals.turn_patch(seen, fields(turn, seen))
                return self._turn(await self._patch(path + "/status", write))
            except FAILURES as error:
                if meaning(error) is not Meaning.LOST_RACE:
                    raise away(error) from error
        raise JournalAway("the turn was written by others time and again")

    patch.setattr(KubeJournal, "_write_turn", blind)


def no_epoch_check_in_the_journal(patch: Patch) -> None:
    """A process does not ask whether it still is the owner, nor says so when it writes."""

    async def anyone(self: KubeJournal) -> Mapping[str, Any]:
        path = kube.task(self._task.namespace, self._task.name)
        found = await find(self._api, path)
        assert found is not None
        return found

    patch.setattr(KubeJournal, "_task_if_ours", anyone)
    patch.setattr(taskstatus, "is_ours", taskstatus.is_unchanged)


def a_found_turn_is_not_fenced(patch: Patch) -> None:
    """A record that was found is gone on with, whoever else may still write it."""

    async def take(self: KubeJournal, stored: Turn | End) -> Turn | End:
        return stored

    patch.setattr(KubeJournal, "_take_over", take)


def status_without_version(patch: Patch) -> None:
    """A status write may follow any other of its owner."""

    def ours(current: Mapping[str, Any]) -> taskstatus.Patch:
        return [
            {"op": "test", "path": "/metadata/uid", "value": taskstatus.uid(current)},
            {"op": "test", "path": "/status/owner/epoch", "value": taskstatus.epoch(current)},
        ]

    patch.setattr(taskstatus, "is_ours", ours)


def a_request_left_behind_is_not_counted(patch: Patch) -> None:
    """What an owner asked that was lost is spent, and nobody says so."""
    resume = chain._resume_asking

    def free(state: State, asking: Asking | None) -> State:
        resumed = resume(state, asking)
        return replace(resumed, lost_requests=state.lost_requests, lost_tokens=state.lost_tokens)

    patch.setattr(chain, "_resume_asking", free)


def a_mark_outlives_its_count(patch: Patch) -> None:
    """The mark of a request that is counted as lost stays, and is counted again at the next claim."""

    def awaits(summary: Summary, asking: Asking) -> bool:
        return summary.phase not in TERMINAL_PHASES and asking.turn > summary.turns

    patch.setattr(Summary, "awaits", awaits)


def decision_from_the_watch_cache(patch: Patch) -> None:
    """A claim reads the journal from what the process has seen of it, which is a little behind."""
    cache: dict[int, tuple[kube.Api, float, list[Mapping[str, Any]]]] = {}
    turns_of = journals.turns_of

    async def cached(api: kube.Api, task: TaskRef) -> list[Mapping[str, Any]]:
        now = asyncio.get_running_loop().time()
        known = cache.get(id(api))
        if known is not None and known[0] is api and now - known[1] < 5.0:
            return known[2]
        found = await turns_of(api, task)
        cache[id(api)] = api, now, found
        return found

    patch.setattr(claim, "turns_of", cached)
    patch.setattr(checking, "last_known", lambda _current: -1)


# --- the sandbox's server ------------------------------------------------------------------------


def no_epoch_check_in_the_sandbox(patch: Patch) -> None:
    """The server listens to every owner."""

    def fence(self: Calls, epoch: int, _ledger: str) -> None:
        self._ledger.raise_epoch(epoch)

    patch.setattr(Calls, "fence", fence)


def reserved_key_is_run_again(patch: Patch) -> None:
    """A key that is reserved and has no end yet is handed over once more."""
    submit = Calls.submit

    async def again(self: Calls, submission: Submission) -> Record:
        key = submission.call.key
        known = self._ledger.find(key)
        record = await submit(self, submission)
        if known is not None and not record.finished and self.session is not None:
            self.session.send(
                protocol.Run(key, submission.call.tool, submission.arguments, 300, 300)
            )
        return record

    patch.setattr(Calls, "submit", again)


def ledger_is_not_flushed(patch: Patch) -> None:
    """The ledger says that it is written before it is on disk."""
    opened = Ledger._open.__func__  # type: ignore[attr-defined]

    def careless(cls: type[Ledger], *args: Any) -> Ledger:
        ledger: Ledger = opened(cls, *args)
        ledger._db.execute("PRAGMA synchronous=OFF")
        return ledger

    patch.setattr(Ledger, "_open", classmethod(careless))


def commit_after_the_hand_over(patch: Patch) -> None:
    """A reservation is committed some time after its call was handed over."""
    reserve, finish = Ledger.reserve, Ledger._finish

    def commit(ledger: Ledger) -> None:
        if ledger._db.in_transaction:
            ledger._db.execute("COMMIT")

    def lazily(self: Ledger, call: Call, shell: str, meta: Meta) -> Record:
        commit(self)
        self._db.execute("BEGIN")
        asyncio.get_running_loop().call_later(5.0, commit, self)
        return reserve(self, call, shell, meta)

    def after(self: Ledger, found: list[Record]) -> None:
        commit(self)
        finish(self, found)

    patch.setattr(Ledger, "reserve", lazily)
    patch.setattr(Ledger, "_finish", after)


ALL: Mapping[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        results_before_the_effect,
        tool_before_the_replys_commit,
        blind_retry_on_409,
        no_epoch_check_in_the_journal,
        no_epoch_check_in_the_sandbox,
        no_generation_check,
        decision_from_the_watch_cache,
        key_without_the_turn,
        ledger_is_not_flushed,
        commit_after_the_hand_over,
        reserved_key_is_run_again,
        no_digest_check_of_the_early_answer,
        every_call_is_repeated,
        unknown_is_taken_for_done,
        attempts_share_an_id,
        a_found_turn_is_not_fenced,
        status_without_version,
        a_request_left_behind_is_not_counted,
        a_mark_outlives_its_count,
    )
}
