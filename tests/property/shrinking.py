"""Make a plan that breaks a promise as small as it can be while it still does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from tests.proof.rows import Findings
from tests.property.plan import Disaster, Plan, plan_of
from tests.property.scenario import Played, play

TRIES = 400
"""Plays, at most."""
SIMPLE = Plan(seed=0, share_bad=0.0, tool_s=1.0)
"""What is aimed at where it does not matter."""
_PROMISES = [f.name for f in fields(Findings) if f.name not in ("remarks", "unknown_reported")]


def kept(seed: int, tries: int = TRIES) -> Played:
    """Play a seed. Raises AssertionError with a plan made small, its story, and how to play it
    again, if a promise is broken."""
    played = play(plan_of(seed))
    if played.findings.broken:
        raise AssertionError(f"seed {seed}: {shrink(played, tries=tries).text}")
    return played


def shrink(broken: Played, again: Callable[[Plan], Played] = play, tries: int = TRIES) -> Played:
    """A smaller plan that breaks one of the same promises: fewer disasters, then lower numbers,
    then fewer answers."""
    words = broken_promises(broken)
    before = None
    while before != broken.plan:
        before = broken.plan
        for smaller in (_with_fewer_disasters, _simpler, _with_lower_numbers, _with_fewer_answers):
            candidates = smaller(broken.plan)
            while tries > 0 and (plan := next(candidates, None)) is not None:
                tries -= 1
                played = again(plan)
                if broken_promises(played) & words:
                    broken, candidates = played, smaller(plan)
    return broken


def broken_promises(played: Played) -> frozenset[str]:
    """Names of the findings that should be 0 and are not."""
    return frozenset(name for name in _PROMISES if getattr(played.findings, name))


def _with_fewer_disasters(plan: Plan) -> Iterator[Plan]:
    every = plan.disasters
    for length in (len(every), len(every) // 2, 1):
        for begin in range(0, len(every), max(length, 1)):
            rest = every[:begin] + every[begin + length :]
            if len(rest) < len(every):
                yield replace(plan, disasters=rest)


def _simpler(plan: Plan) -> Iterator[Plan]:
    for field in fields(Plan):
        simple = getattr(SIMPLE, field.name)
        taken = ("seed", "answers", "disasters")
        if field.name not in taken and getattr(plan, field.name) != simple:
            yield replace(plan, **{field.name: simple})


def _with_fewer_answers(plan: Plan) -> Iterator[Plan]:
    for at, answer in enumerate(plan.answers):
        yield replace(plan, answers=plan.answers[:at] + plan.answers[at + 1 :])
        for word in range(len(answer) if len(answer) > 1 else 0):
            less = answer[:word] + answer[word + 1 :]
            yield replace(plan, answers=(*plan.answers[:at], less, *plan.answers[at + 1 :]))


def _with_lower_numbers(plan: Plan) -> Iterator[Plan]:
    for at, disaster in enumerate(plan.disasters):
        for lower in _lower(disaster):
            yield replace(plan, disasters=(*plan.disasters[:at], lower, *plan.disasters[at + 1 :]))


def _lower(disaster: Disaster) -> Iterator[Disaster]:
    for length in (0.0, 0.5, 3.0):
        if length < disaster.seconds:
            yield replace(disaster, seconds=length)
    moment = disaster.moment
    if moment is not None:
        for lower in (1, moment // 2, moment - 8, moment - 1):
            if 0 < lower < moment:
                yield replace(disaster, moment=lower)
    if disaster.call is not None and disaster.call > 1:
        yield replace(disaster, call=1)
    if disaster.at is not None and disaster.at != round(disaster.at, 1):
        yield replace(disaster, at=round(disaster.at, 1))
