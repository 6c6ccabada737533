"""Rules about tool calls, evaluated by the real process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from ratchet.core.config import Rule, RuleAction
from ratchet.edges.rules import MAX_EXPRESSION, MAX_RULES, WALL_S, RuleProcess
from ratchet.ports import PortError, RuleCheck

pytestmark = pytest.mark.asyncio(loop_scope="module")

LS = {"command": "ls -l"}
HUGE = {"command": "x" * 65_000, "numbers": list(range(30_000))}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def book() -> AsyncIterator[RuleProcess]:
    async with RuleProcess() as book:
        yield book


def deny(when: str, name: str = "no", message: str = "Not that.") -> Rule:
    return Rule(name, when, RuleAction.DENY, message)


def allow(when: str, name: str = "yes") -> Rule:
    return Rule(name, when, RuleAction.ALLOW)


async def ask(
    book: RuleProcess,
    *rules: Rule,
    tool: str = "bash",
    args: Mapping[str, Any] = LS,
    calls: Mapping[str, int] | None = None,
    turn: int = 1,
) -> str | None:
    check: RuleCheck = book.decide
    arguments = json.dumps(args, ensure_ascii=False)
    return await check(rules, tool, arguments, calls or {}, turn)


@pytest.mark.parametrize(
    ("when", "args", "denied"),
    [
        ("true", LS, True),
        ("false", LS, False),
        ("tool == 'bash'", LS, True),
        ("tool == 'grep'", LS, False),
        ("tool == 'bash' && args.command.contains('ls')", LS, True),
        ("args.command.startsWith('rm ')", LS, False),
        ("args.command.matches('^(ls|pwd)( |$)')", LS, True),
        ("args['command'] == 'ls -l'", LS, True),
        ("has(args.path) && args.path == '/etc'", LS, False),
        ("'path' in args", LS, False),
        ("args.exists(name, name == 'command')", LS, True),
        ("args.edits.all(edit, edit.new != '')", {"edits": [{"new": "a"}, {"new": "b"}]}, True),
        ("args.edits.all(edit, edit.new != '')", {"edits": [{"new": "a"}, {"new": ""}]}, False),
        ("size(args.edits) > 1", {"edits": []}, False),
        ("args.timeout > 30", {"timeout": 31}, True),
        ("args.timeout > 30", {"timeout": 30.5}, True),
        ("args.timeout == 1", {"timeout": 1.0}, True),
        ("args.big > 5", {"big": 2**80}, True),
        ("type(args.x) == null_type", {"x": None}, True),
        ("args.deep.a.b.c", {"deep": {"a": {"b": {"c": True}}}}, True),
        ("args.command.contains('ключ')", {"command": "echo ключ 😀"}, True),
        ("args.command == 'a\\u00e9😀'", {"command": "aé😀"}, True),
        ("args['ö'] == 1", {"ö": 1}, True),
        ("args.command.contains('y') || size(args.numbers) > 29999", HUGE, True),
        ("args.numbers.exists(n, n < 0)", HUGE, False),
    ],
)
async def test_a_rule_that_is_true_of_the_call_denies_it(
    book: RuleProcess, when: str, args: Mapping[str, Any], denied: bool
) -> None:
    said = await ask(book, deny(when), args=args)
    assert said == ("Denied by rule no: Not that." if denied else None)


@pytest.mark.parametrize(
    ("when", "denied"),
    [
        ("calls.bash >= 3", True),
        ("calls.bash >= 4", False),
        ("calls.total == 5", True),
        ("calls[tool] > 2", True),
        ("calls.write_file > 0", False),
        ("turn > 6", True),
        ("turn > 7", False),
    ],
)
async def test_rules_know_how_often_a_tool_was_called_and_the_turn(
    book: RuleProcess, when: str, denied: bool
) -> None:
    said = await ask(book, deny(when), calls={"bash": 3, "grep": 2}, turn=7)
    assert (said is not None) == denied


async def test_a_tool_that_was_never_called_counts_zero(book: RuleProcess) -> None:
    assert await ask(book, deny("calls.bash > 0 || calls.total > 0")) is None


async def test_without_rules_all_is_allowed_and_no_process_is_started() -> None:
    async with RuleProcess() as book:
        assert await ask(book) is None
        assert await book.problems(()) == ()
        assert book.pid is None


async def test_the_first_rule_that_is_true_decides(book: RuleProcess) -> None:
    inside = allow("args.path.startsWith('src/')", "inside")
    rest = deny("true", "rest", "Write below src/ only.")
    assert await ask(book, inside, rest, args={"path": "src/a"}) is None
    assert await ask(book, inside, rest, args={"path": "b"}) == (
        "Denied by rule rest: Write below src/ only."
    )
    assert await ask(book, rest, inside, args={"path": "src/a"}) is not None


async def test_a_rule_after_the_first_true_one_is_not_evaluated(book: RuleProcess) -> None:
    assert await ask(book, allow("true"), deny("args.nothing == 1")) is None


async def test_a_denial_without_a_message_still_says_something(book: RuleProcess) -> None:
    said = await ask(book, deny("true", "quiet", message=""))
    assert said == "Denied by rule quiet: the rules of this task do not allow this call"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (allow("args.path == 'a'"), "there is no 'path' (ask with has() before)"),
        (deny("args.path == 'a'"), "there is no 'path'"),
        (allow("args.command > 1"), "No such overload"),
        (allow("args.command + 1 == ''"), "string + int"),
        (allow("args.command"), "it gives str where true or false is wanted"),
        (allow("turn"), "it gives int where true or false is wanted"),
        (allow("unknown == 1"), "unknown"),
        (allow("1 +"), "Syntax error"),
        (
            allow("args.command.matches(args.command + '(')"),
            "a pattern is no regular expression: unclosed group",
        ),
        (allow("1 / (turn - 1) > 0"), "zero"),
        (allow(""), "Syntax error"),
    ],
)
async def test_a_rule_that_cannot_be_evaluated_denies_and_says_why(
    book: RuleProcess, rule: Rule, says: str
) -> None:
    said = await ask(book, rule)
    assert said is not None
    assert said.startswith(f"Denied by rule {rule.name}, which cannot be evaluated for this call: ")
    assert says in said and "\n" not in said


async def test_arguments_that_cannot_be_read_are_denied(book: RuleProcess) -> None:
    deep = "[" * 20_000 + "]" * 20_000
    said = await book.decide((allow("true"),), "bash", f'{{"a": {deep}}}', {}, 1)
    assert said is not None and "the arguments cannot be looked at" in said


PATHOLOGICAL = {
    "a comprehension in a comprehension": (
        "args.numbers.all(a, args.numbers.all(b, args.numbers.all(c, a + b + c >= 0)))"
    ),
    "lists that are copied again and again": "size(args.numbers.map(n, args.numbers)) > 0",
    "long texts, many times": "size(args.numbers.map(n, args.command + args.command)) > 0",
    "a large pattern": "args.command.matches('(x{1,100}){1,100}y')",
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
async def test_a_rule_without_end_is_denied_and_the_loop_goes_on_meanwhile(
    book: RuleProcess, name: str
) -> None:
    await ask(book, allow("true"))
    pause, longest, last = 0.01, 0.0, time.monotonic()
    asking = asyncio.create_task(ask(book, allow(PATHOLOGICAL[name]), args=HUGE))
    while not asking.done():
        await asyncio.wait({asking}, timeout=pause)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    said = asking.result()
    assert said is not None and said.startswith("Denied: the rules of this task ")
    # By its own bounds, of time or of memory, long before the deadline.
    assert "more processor time than they may" in said or "their process ended" in said
    # In a thread of this process it would be as long as the evaluation: the library holds the lock.
    assert longest < WALL_S / 2
    assert await ask(book, allow("true")) is None, "the next call is judged as ever"


async def test_a_process_that_was_killed_is_started_again_unnoticed(book: RuleProcess) -> None:
    await ask(book, deny("true"))
    first = book.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await ask(book, deny("true")) == "Denied by rule no: Not that."
    assert book.pid != first


async def test_many_calls_at_once_get_each_its_own_answer(book: RuleProcess) -> None:
    async def one(number: int) -> str | None:
        return await ask(book, deny("args.n == 7", message="Seven."), args={"n": number})

    said = await asyncio.gather(*(one(number) for number in range(50)))
    assert [number for number, text in enumerate(said) if text] == [7]


async def test_who_is_cancelled_leaves_no_answer_for_the_next(book: RuleProcess) -> None:
    asking = asyncio.create_task(ask(book, deny("args.numbers.exists(n, n < 0)"), args=HUGE))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await ask(book, deny("true")) == "Denied by rule no: Not that."


async def test_closing_ends_the_process_and_denies_what_comes_later() -> None:
    book = RuleProcess()
    assert await ask(book, allow("true")) is None
    pid = book.pid
    assert pid is not None
    await book.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    said = await ask(book, allow("true"))
    assert said is not None and "the operator ends" in said
    with pytest.raises(PortError, match="the operator ends"):
        await book.problems([allow("true")])


async def test_closing_does_not_wait_for_a_rule_without_end() -> None:
    book = RuleProcess()
    asking = asyncio.create_task(
        ask(book, allow(PATHOLOGICAL["a comprehension in a comprehension"]), args=HUGE)
    )
    await asyncio.sleep(0)
    begun = time.monotonic()
    await book.close()
    assert time.monotonic() - begun < WALL_S / 2
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_more_rules_or_longer_ones_than_allowed_are_no_rules(book: RuleProcess) -> None:
    many = tuple(allow("true") for _ in range(MAX_RULES + 1))
    long = (allow("true" + " " * MAX_EXPRESSION, "wide"),)
    assert (await book.problems(many)) == ("Too many rules (33): at most 32 are allowed.",)
    (problem,) = await book.problems(long)
    assert "rule wide is too long (1028 characters)" in problem
    for rules in (many, long):
        assert await ask(book, *rules) is not None


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("1 +", "at character 4 of line 1: Syntax error"),
        ("", "Syntax error"),
        ("tol == 'bash'", "there is no variable 'tol'; there are args, calls, tool, turn"),
        ("lowerAscii(tool) == 'bash'", "there is no function 'lowerAscii'; there are bytes, "),
        ("tool.split('a')[0] == ''", "there is no function 'split'"),
        ("tool.matches('(')", "'(': a pattern is no regular expression: unclosed group"),
        ("args.l.all(a, b)", "there is no variable 'b'"),
    ],
)
async def test_what_is_wrong_with_a_rule_is_found_before_any_call(
    book: RuleProcess, when: str, says: str
) -> None:
    (problem,) = await book.problems([allow("true", "good"), deny(when, "bad")])
    assert problem.startswith("Rule bad is no expression that can be used: ")
    assert says in problem and "\n" not in problem


@pytest.mark.parametrize(
    "when",
    [
        "tool == 'bash' && args.command.matches(r'^rm\\s+-rf')",
        "args.edits.exists( edit , edit.new.contains('x')) || type(args.x) == int",
        "args.l.filter(a, a.all(b, b > 1)).map(c, c[0]).size() > calls[tool] % 2",
        "has(args.path) ? args.path.endsWith('.py') : !(turn in [1, 2, 3])",
        "timestamp('2020-01-01T00:00:00Z').getFullYear() == 2020",
    ],
)
async def test_a_sound_rule_has_no_problems(book: RuleProcess, when: str) -> None:
    assert await book.problems([deny(when)]) == ()
