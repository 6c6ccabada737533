"""Rules beside the model: what it is told to keep, and what it cannot break."""

from __future__ import annotations

from typing import Annotated

from ratchet.api.base import Model, chars, listed
from ratchet.core.config import RuleAction

RULES_MAX = 32
CONSTRAINTS_MAX = 32

Constraints = Annotated[
    tuple[Annotated[str, chars(500, least=1)], ...], listed("atomic", most=CONSTRAINTS_MAX)
]


class PolicyRule(Model):
    """A rule about tool calls. The first whose `when` is true of a call decides about it."""

    name: Annotated[str, chars(63, least=1, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """Name of the rule, as the model is told it: lower-case letters, digits and dashes, once in
    the list. Required."""
    when: Annotated[str, chars(1024, least=1)]
    """A CEL expression that is true of the calls that the rule decides about, up to 1,024
    characters, such as args.command.contains('git push'). It knows tool (a string), args (the
    call's arguments, a map), calls (how often the task called each tool before this call, and all
    of them as total) and turn (a number). One that fails denies the call. Required."""
    action: RuleAction
    """Allow lets the call run, whatever later rules say. Deny answers it with the rule's name and
    message instead. Required."""
    message: Annotated[str, chars(500)] | None = None
    """What the model is told of a call that is denied: what to do instead. Default: that the rules
    of the task do not allow the call."""


class Policy(Model):
    """Which tool calls may run. The tools finish and todo are always allowed."""

    rules: (
        Annotated[tuple[PolicyRule, ...], listed("map", most=RULES_MAX, keys=("name",))] | None
    ) = None
    """Rules in the order in which they are asked, at most 32. A call that none of them is true of
    is allowed. Default: none."""
