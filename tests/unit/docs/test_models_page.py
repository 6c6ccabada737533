"""The rules of `docs/models.md` decide as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from ratchet.core.config import Rule, RuleAction
from ratchet.edges.access import ADMIN_KEY, LIFE_S
from ratchet.edges.model import STALL_S
from ratchet.edges.rules import CPU_S, MAX_EXPRESSION, MAX_RULES, WALL_S, RuleProcess

PAGE = (Path(__file__).resolve().parents[3] / "docs/models.md").read_text()


def rules() -> tuple[Rule, ...]:
    (block,) = re.findall(r"```yaml\n(policy:\n  rules:\n.*?)```", PAGE, re.DOTALL)
    return tuple(
        Rule(rule["name"], rule["when"], RuleAction(rule["action"]), rule["message"])
        for rule in yaml.safe_load(block)["policy"]["rules"]
    )


async def test_the_rules_of_the_page_decide_as_it_says() -> None:
    async with RuleProcess() as process:
        assert await process.problems(rules()) == ()
        said = [
            await process.decide(rules(), *call, 1)
            for call in (
                ("read_file", '{"path": "x"}', {}),
                ("write_file", '{"path": "src/a"}', {}),
                ("write_file", '{"path": "x"}', {}),
                ("bash", '{"command": "git push"}', {}),
                ("bash", '{"command": "ls"}', {"bash": 200}),
            )
        ]
    assert said == [
        None,
        None,
        "Denied by rule src-only: Write below src/ only.",
        "Denied by rule no-pushes: Pushing is done by people.",
        "Denied by rule enough: That was enough. Call finish.",
    ]


def test_the_bounds_of_the_page_are_those_of_the_code() -> None:
    assert (MAX_RULES, MAX_EXPRESSION, CPU_S, WALL_S) == (32, 1024, 0.5, 10.0)
    assert "32 rules of 1,024 characters; 0.5 s of processor time, 128 MiB and 10 s" in PAGE
    assert (LIFE_S, STALL_S) == (60.0, 60.0)
    assert f"`{ADMIN_KEY}`" in PAGE
