"""Which endpoint is asked next, and when: what failures of model requests lead to. Pure.

Endpoints are asked in their order. A pass over them ends when the last one has failed, or is known
to be away; the next pass begins after a pause. A reply forgets all of it, and so does a new owner:
the next request begins at the first endpoint again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ratchet.core.conditions import Reason
from ratchet.core.config import Config, ModelConfig
from ratchet.core.policy import Stop, backoff, fail
from ratchet.core.replies import FailureKind, ModelFailure

WAITS_BEFORE_NEXT = 3
"""Times in a row that a full endpoint is waited for before the next one is asked."""
PATIENCE_S = 30.0
"""A full endpoint that says it takes longer (Retry-After) is not waited for if there is another."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with one endpoint."""

    message: str = ""
    """Of its newest failure; empty while it has not failed since the last reply."""
    kind: FailureKind | None = None
    """None: it did not fail, or it is away."""
    status: int | None = None
    failures: int = 0
    """Counted ones of this pass."""
    waits: int = 0
    """In a row, of this pass."""
    until: datetime | None = None
    """Not before this time, as it said itself or as is known of it."""

    @property
    def may_recover(self) -> bool:
        """Whether it failed in a way that may pass without a person."""
        return bool(self.message) and self.kind in (None, FailureKind.RETRY, FailureKind.WAIT)


UNTRIED = Standing()


@dataclass(frozen=True, slots=True)
class Route:
    """Where the next request goes, and what has failed since the last reply."""

    index: int = 0
    """Of the endpoint that is asked."""
    standings: tuple[Standing, ...] = ()
    """By index; may be shorter than the list of endpoints."""
    passes: int = 0
    """Passes in a row that have failed."""
    since: datetime | None = None
    """The first failure since an endpoint gave a sign of life."""
    until: datetime | None = None
    """Nobody is asked before this time."""
    news: bool = False
    """Whether the newest failure is of another kind than the one before it at its endpoint."""

    def blocks(self, now: datetime) -> bool:
        """Whether nobody is to be asked now."""
        return self.until is not None and now < self.until

    def standing(self, index: int) -> Standing:
        """How it stands with an endpoint."""
        return self.standings[index] if index < len(self.standings) else UNTRIED


FIRST = Route()
"""Where each request begins."""


def failed(
    config: Config, route: Route, failure: ModelFailure, at: datetime, jitter: float
) -> Route | Stop:
    """What a failed attempt at the endpoint that is asked leads to.

    `jitter` is a random number in [0, 1). That a conversation does not fit comes here only once
    nothing more of it can be left out.
    """
    model, before = config.endpoints[route.index], route.standing(route.index)
    waits = failure.kind is FailureKind.WAIT
    now = replace(
        before,
        message=failure.message,
        kind=failure.kind,
        status=failure.status,
        failures=before.failures + (failure.kind is FailureKind.RETRY),
        waits=before.waits + 1 if waits else 0,
        until=_after(at, failure.retry_after_s),
    )
    route = replace(
        _noted(route, now),
        since=None if waits else route.since or at,  # one that is full is alive
        news=(before.kind, before.status) != (failure.kind, failure.status),
    )
    match failure.kind:
        case FailureKind.WAIT if not _tries_next(config, route, failure, now):
            return _paused(route, model, now.waits, now.until, at, jitter)
        case FailureKind.RETRY if now.failures < model.attempts:
            return _paused(route, model, now.failures, now.until, at, jitter)
        case _:
            return _next(config, route, at, jitter)


def _tries_next(config: Config, route: Route, failure: ModelFailure, now: Standing) -> bool:
    """Whether a full endpoint is left for the next one."""
    if len(config.endpoints) == 1:
        return False
    patience_s, wait_s = patience(config, route.index), failure.retry_after_s or 0.0
    return now.waits >= WAITS_BEFORE_NEXT or (patience_s is not None and wait_s > patience_s)


def patience(config: Config, index: int) -> float | None:
    """Seconds that this endpoint is waited for when it is full; None: as long as it takes."""
    return PATIENCE_S if index + 1 < len(config.endpoints) else None


def away(
    config: Config, route: Route, message: str, until: datetime, at: datetime, *, full: bool = False
) -> Route | Stop:
    """What it leads to that the endpoint is known not to serve: it is not asked, and costs nothing.

    `full`: it works, and has said that it is full until then.
    """
    before, kind = route.standing(route.index), FailureKind.WAIT if full else None
    now = replace(before, message=message, kind=kind, status=None, waits=0, until=until)
    news = before.kind is not kind or not before.message
    since = None if full else route.since or at
    return _next(config, replace(_noted(route, now), since=since, news=news), at, 0.0)


def _noted(route: Route, standing: Standing) -> Route:
    known = list(route.standings)
    known += [UNTRIED] * (route.index + 1 - len(known))
    known[route.index] = standing
    return replace(route, standings=tuple(known))


def _after(at: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else at + timedelta(seconds=seconds)


def _paused(
    route: Route,
    model: ModelConfig,
    times: int,
    until: datetime | None,
    at: datetime,
    jitter: float,
) -> Route:
    """Ask the same endpoint again, after a pause that grows."""
    pause = backoff(times, jitter, first=model.backoff_first_s, most=model.backoff_most_s)
    return replace(route, until=max(at + pause, until or at))


def _next(config: Config, route: Route, at: datetime, jitter: float) -> Route | Stop:
    """Ask the next endpoint at once; behind the last one the pass is over."""
    for index in range(route.index + 1, len(config.endpoints)):
        if _worth_asking(config, route, index):
            return replace(route, index=index, until=None)
    return _pass_over(config, route, at, jitter)


def _worth_asking(config: Config, route: Route, index: int) -> bool:
    """A conversation that did not fit is taken only to a window that is, or may be, larger."""
    if route.standing(route.index).kind is not FailureKind.CONTEXT:
        return True
    full, other = config.endpoints[route.index].context_window, config.endpoints[index]
    return full is None or other.context_window is None or other.context_window > full


def _pass_over(config: Config, route: Route, at: datetime, jitter: float) -> Route | Stop:
    hopeful = [standing for standing in route.standings if standing.may_recover]
    if not hopeful:
        return _refused(route.standing(route.index))
    full = any(standing.kind is FailureKind.WAIT for standing in hopeful)
    if not full and _given_up(config, route, at):
        return fail(Reason.MODEL_UNREACHABLE, _end_of(config, route, at))
    first = config.model
    # Nobody is troubled by asking again as soon as an endpoint that is away is to be back.
    times = 1 if all(standing.kind is None for standing in hopeful) else route.passes + 1
    pause = backoff(times, jitter, first=first.backoff_first_s, most=first.backoff_most_s)
    until = max(at + pause, min(standing.until or at for standing in hopeful))
    if not full and route.since is not None and first.give_up_s > 0:
        until = min(until, route.since + timedelta(seconds=first.give_up_s))
    fresh = tuple(replace(standing, failures=0, waits=0) for standing in route.standings)
    return replace(route, index=0, standings=fresh, passes=route.passes + 1, until=until)


def _refused(standing: Standing) -> Stop:
    """The end where nothing is left that could pass by waiting: the newest failure says why."""
    if standing.kind is FailureKind.CONTEXT:
        return fail(Reason.CONTEXT_FULL, standing.message)
    if standing.kind is FailureKind.CONFIGURATION and standing.status in (401, 403):
        return fail(Reason.MODEL_UNAUTHORIZED, standing.message)
    return fail(Reason.MODEL_REJECTED, standing.message)


def _given_up(config: Config, route: Route, at: datetime) -> bool:
    """Whether the endpoints have failed long enough. At once still means after one was asked."""
    give_up = config.model.give_up_s
    if give_up <= 0:
        return any(s.failures or s.kind is not None for s in route.standings)
    return route.since is not None and at >= route.since + timedelta(seconds=give_up)


# --- what people are told ------------------------------------------------------------------------


def told(config: Config, route: Route) -> tuple[Reason, str] | None:
    """What is in the way of the next reply; None if nothing is."""
    newest = _newest(route)
    if newest is None:
        return None
    full = any(standing.kind is FailureKind.WAIT for standing in route.standings)
    if route.passes:
        reason = Reason.MODEL_BUSY if full else Reason.MODEL_UNREACHABLE
        return reason, _outlook(config, route)
    index, standing = newest
    reason = Reason.MODEL_BUSY if standing.kind is FailureKind.WAIT else Reason.MODEL_RETRYING
    if index == route.index:
        return reason, standing.message
    other = config.endpoints[route.index].known_as
    return reason, f"{standing.message} Endpoint {other} is asked instead."


def _newest(route: Route) -> tuple[int, Standing] | None:
    """The endpoint that failed last: the one that is asked, or the nearest one before it."""
    for index in range(min(route.index, len(route.standings) - 1), -1, -1):
        if route.standings[index].message:
            return index, route.standings[index]
    return None


def _outlook(config: Config, route: Route) -> str:
    """All that a person needs to know while no endpoint gives a reply."""
    parts = []
    if route.since is not None:
        parts.append(f"No model endpoint has given a reply since {_time(route.since)}.")
        if config.model.give_up_s > 0:
            end = route.since + timedelta(seconds=config.model.give_up_s)
            parts.append(f"The task gives up at {_time(end)}.")
    if route.until is not None:
        parts.append(f"Next try: {_time(route.until)}.")
    parts.append(
        "Bring a server back, or set spec.cancel; the task keeps the addresses it began with."
    )
    return " ".join([*parts, *_lines(config, route)])


def _end_of(config: Config, route: Route, at: datetime) -> str:
    standing = route.standing(route.index)
    if config.model.give_up_s <= 0 and len(config.endpoints) == 1:
        return f"{standing.message} ({standing.failures} attempts were made.)"
    seconds = (at - (route.since or at)).total_seconds()
    text = f"No model endpoint gave a reply for {seconds:.0f} s. "
    return text + " ".join(_lines(config, route))


def _lines(config: Config, route: Route) -> list[str]:
    """The newest failure of each endpoint."""
    if len(config.endpoints) == 1:
        return [route.standing(0).message]
    models = enumerate(config.endpoints)
    told = ((model.known_as, route.standing(index).message) for index, model in models)
    return [f"{name}: {message or 'not asked.'}" for name, message in told]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
