"""What happened to a task, told line by line: time, who, what, and what is under way then."""

from __future__ import annotations

from collections.abc import Callable

from ratchet.core import commands as c
from ratchet.core import events as e
from ratchet.core.loop import decide
from ratchet.core.records import End, Turn
from ratchet.fakes.clock import LoopClock

from tests.unit.core.world import Seen, World


class Story:
    """Listens to a world and remembers its story."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lines: list[str] = []
        self._before: tuple[str, ...] = ()
        world.tellers.append(self._told)
        world.witnesses.append(self._seen)

    def text(self, title: str) -> str:
        """The whole story, and the journal that is left of it."""
        journal = [line for record in self._world.task.journal[1:] for line in _record(record)]
        effects = [
            f"  {_short(x.key)} {x.tool} in sandbox {x.generation}" for x in self._world.effects
        ]
        parts = [
            title,
            "",
            *self._lines,
            "",
            "Journal:",
            *journal,
            "",
            "What really ran:",
            *effects,
        ]
        return "\n".join(line.rstrip() for line in parts) + "\n"

    def _told(self, who: str, what: str) -> None:
        self._lines.append(f"{self._world.now:8.2f}  {who:<8} {what}")

    def _seen(self, seen: Seen) -> None:
        what = describe(seen.event)
        wishes = tuple(_wish(wish) for wish in decide(seen.state, LoopClock().now()))
        under_way = "" if wishes == self._before else f"  -> {', '.join(wishes) or 'nothing'}"
        self._before = wishes
        self._lines.append(f"{seen.at:8.2f}  {seen.owner:<8} {what}{under_way}")


def describe(event: e.Event) -> str:
    """An event in words."""
    return _WORDS.get(type(event), _plain)(event)


def _plain(event: object) -> str:
    return type(event).__name__


def _replied(event: e.Replied) -> str:
    calls = ", ".join(call.tool for call in event.reply.calls)
    return f"the model answers turn {event.turn}: {event.reply.verdict} {calls}".rstrip()


def _ended(event: e.CallEnded) -> str:
    return f"call {_short(event.receipt.key)} ended: {event.receipt.outcome}"


def _interrupted(event: e.CallInterrupted) -> str:
    how = event.receipt.outcome if event.receipt else "it had not begun"
    return f"call {_short(event.key)} was interrupted: {how}"


_WORDS: dict[type, Callable[..., str]] = {
    e.Replied: _replied,
    e.AskFailed: lambda x: (
        f"attempt {x.attempt} at turn {x.turn} failed ({x.failure.kind}): {x.failure.message}"
    ),
    e.AskWithdrawn: lambda x: f"attempt {x.attempt} at turn {x.turn} is given up",
    e.Queued: lambda x: f"attempt {x.attempt} at turn {x.turn} waits: {x.message}",
    e.Admitted: lambda x: f"attempt {x.attempt} at turn {x.turn} is let in",
    e.AdmissionLapsed: lambda x: f"attempt {x.attempt} at turn {x.turn} leaves the queue",
    e.EndpointAway: lambda x: f"endpoint {x.index} is away: {x.message}",
    e.PriorityChanged: lambda x: f"the priority is {x.priority}",
    e.AskingMarked: lambda x: f"attempt {x.asking.attempt} at turn {x.asking.turn} is marked",
    e.TurnStored: lambda x: f"turn {x.turn.number} is in the journal",
    e.RerunStored: lambda x: f"a re-run in turn {x.turn.number} is in the journal",
    e.ResultsStored: lambda x: f"the results of turn {x.turn.number} are in the journal",
    e.EndStored: lambda x: f"the end is in the journal: {x.end.outcome}, {x.end.reason}",
    e.JournalFailed: lambda _: "the API server did not answer",
    e.SandboxAnswered: lambda x: f"sandbox {x.sandbox.generation} answers",
    e.SandboxWaited: lambda x: f"the sandbox is not ready: {x.message}",
    e.SandboxVanished: lambda x: f"sandbox {x.generation} is gone",
    e.SandboxUnreachable: lambda x: f"the sandbox does not answer: {x.message}",
    e.SandboxChanged: lambda _: "the sandbox may have changed",
    e.NetworkLearned: lambda x: f"sandbox {x.generation}'s network: {x.verdict.enforcement}",
    e.NetworkUnlearned: lambda x: f"sandbox {x.generation} does not say how its network is",
    e.LedgerBound: lambda x: f"the status names ledger {x.sandbox.ledger}",
    e.GenerationRaised: lambda x: f"the status names sandbox {x.sandbox.generation}",
    e.CallEnded: _ended,
    e.CallInterrupted: _interrupted,
    e.PatchTaken: lambda x: "the patch is taken" if x.patch else "there is no patch",
    e.PatchFailed: lambda x: f"the patch cannot be had: {x.message}",
    e.CancelSeen: lambda _: "cancel is seen",
    e.OwnerLost: lambda _: "the task is somebody else's",
    e.Concluded: lambda _: "the status shows the end",
    e.SandboxRemoved: lambda _: "the sandbox is removed",
}


def _wish(wish: c.Command) -> str:
    match wish:
        case c.Ask() | c.Admit():
            return f"{type(wish).__name__} {wish.turn} (attempt {wish.attempt})"
        case c.RunCall() | c.InterruptCall():
            return f"{type(wish).__name__} {_short(wish.order.key)}"
        case c.StoreTurn() | c.StoreResults() | c.StoreEnd():
            return f"{type(wish).__name__} {wish.number}"
        case _:
            return type(wish).__name__


def _short(key: str) -> str:
    return key.split("/", 1)[1]


def _record(record: object) -> list[str]:
    if isinstance(record, End):
        return [f"  {record.number} End: {record.outcome}, {record.reason}: {record.message}"]
    assert isinstance(record, Turn)
    lines = [
        f"  {record.number} Turn: {record.reply.verdict}, epoch {record.epoch}, sandbox {record.generation}"
    ]
    lines += [f"      re-run {_short(rerun.key)}" for rerun in record.reruns]
    for result in record.results or ():
        call = record.reply.calls[result.index]
        lines.append(f"      {_short(result.key)} {call.tool}: {result.outcome}")
    return lines
