"""What becomes of a task when its model endpoint goes wrong: the worst cases, on a real cluster.

Each case is a task with an endpoint of its own, so that no breaker is shared; all play at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from sglang_fake import FakeSGLang, Script, Settings

from tests.e2e.operator_process import OperatorProcess, free_port
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

WITHIN_S = 150.0
FINISH = {"name": "finish", "arguments": {"summary": "done"}}
GOOD = {"reply": {"tool_calls": [FINISH]}}

Turn = dict[str, Any]


def failing(kind: str, times: int = 1) -> Turn:
    """A turn that fails so often, and is then a good one."""
    return {**GOOD, "error": {"kind": kind, "times": times}}


def said(content: str = "", finish_reason: str = "stop", **more: Any) -> Turn:
    """A reply that no task may end with."""
    return {"reply": {"content": content, "finish_reason": finish_reason, **more}}


@dataclass(frozen=True, slots=True)
class Case:
    """What the model does, and what is to become of the task."""

    name: str
    turns: tuple[Turn, ...]
    phase: str = "Succeeded"
    reason: str = "Finished"
    verdicts: tuple[str, ...] = ("Finish",)
    attempt: int = 1
    """Which attempt brought the first reply."""
    lost: int = 0
    """Requests that were sent and brought nothing."""
    told: str = ""
    """What the model is told of its first reply."""
    endpoint: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    by: str = ""
    """The endpoint that gave the first reply; empty is the task's own."""

    @property
    def goal(self) -> str:
        return f"Case {self.name}."


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPgPAAEDAQAIicLsAAAAAElFTkSuQmCC"
)
IMAGE = {"contextImages": [{"mediaType": "image/png", "data": PIXEL}]}
ONE_TRY = {"retryPolicy": {"model": {"attempts": 1, "giveUpSeconds": 0}}}
CASES = (
    Case("queue-full", (failing("queue_full", 2),), attempt=3, task=ONE_TRY),
    Case("rate-limited", (failing("rate_limited"),), attempt=2, task=ONE_TRY),
    Case("internal", (failing("internal", 2),), attempt=3, lost=2),
    Case("disconnect", (failing("disconnect"),), attempt=2, lost=1),
    Case("cut", (failing("cut"),), attempt=2, lost=1),
    Case("bad-json", (failing("bad_json"),), attempt=2, lost=1),
    Case("aborted", (failing("abort"),), attempt=2, lost=1),
    Case(
        "silent", (failing("hang"),), attempt=2, lost=1, endpoint={"timeouts": {"totalSeconds": 3}}
    ),
    Case(
        "markup-in-text",
        (said('[TOOL_CALLS] [{"name": "finish", "arguments": {"summary": "x"}}'), GOOD),
        verdicts=("Malformed", "Finish"),
        told="[TOOL_CALLS",
    ),
    Case(
        "cut-call",
        (
            said(tool_calls=[{"name": "bash", "arguments": '{"command": "echo'}],
                 finish_reason="length"),
            GOOD,
        ),
        verdicts=("Truncated", "Finish"),
        told="cut off at the token limit",
    ),
    Case(
        "unknown-tool",
        (said(tool_calls=[{"name": "browse", "arguments": {"url": "x"}}]), GOOD),
        verdicts=("UnknownTool", "Finish"),
        told="there is no tool 'browse'",
    ),
    Case("empty", (said(), GOOD), verdicts=("Empty", "Finish"), told="The reply was empty"),
    Case(
        "text-alone",
        (said("All is done."), said("Really, all is done.")),
        phase="Failed", reason="NotFinished", verdicts=("Text", "Text"),
    ),
    Case(
        "never-usable", (said(), said(), said(), said()),
        phase="Failed", reason="RepairsExhausted", verdicts=("Empty",) * 4,
    ),
    Case(
        "context", ({"error": {"kind": "context_too_long"}},),
        phase="Failed", reason="ContextFull", verdicts=(), lost=1,
    ),
    Case(
        "unauthorized", ({"error": {"kind": "unauthorized"}},),
        phase="Failed", reason="ModelUnauthorized", verdicts=(), lost=1,
    ),
    Case(
        "no-endpoint-answers", ({"error": {"kind": "internal"}},),
        phase="Failed", reason="ModelUnreachable", verdicts=(), lost=1, task=ONE_TRY,
    ),
    Case(
        "fallback", (GOOD,), attempt=2, lost=1, by="elsewhere",
        endpoint={"url": "http://127.0.0.1:9/v1"},
        task={
            "retryPolicy": {"model": {"attempts": 1}},
            "model": {"endpointRef": {"name": "fallback"}, "fallbacks": [{"name": "elsewhere"}]},
        },
    ),
    Case("image", (GOOD,), endpoint={"vision": True}, task=IMAGE),
)  # fmt: skip


def _script() -> Script:
    return Script.model_validate(
        {
            "conversations": [
                {"name": case.name, "match": {"contains": case.goal}, "turns": list(case.turns)}
                for case in CASES
            ]
        }
    )


async def _begin(scene: Scene, case: Case, url: str) -> None:
    spec = {"url": url, "model": "fake", "engine": "SGLang", **case.endpoint}
    await scene.kubectl.apply(scene.object("ModelEndpoint", case.name, **spec))
    task = {"model": {"endpointRef": {"name": case.name}}, **case.task}
    await scene.start(case.name, goal=case.goal, **task)


async def test_each_fault_of_a_model_has_the_outcome_that_is_written_down(
    scene: Scene, operator: OperatorProcess
) -> None:
    settings = Settings(forward_unknown_tools=True, vision=True)
    async with FakeSGLang(_script(), settings) as fake:
        await scene.defaults(fake.base_url)
        elsewhere = {"url": fake.base_url, "model": "other", "engine": "SGLang"}
        await scene.kubectl.apply(scene.object("ModelEndpoint", "elsewhere", **elsewhere))
        for case in CASES:
            await _begin(scene, case, fake.base_url)
        found = {case.name: await _outcome(scene, case) for case in CASES}
    wrong = {name: told for name, told in found.items() if told}
    assert not wrong, "\n".join(f"{name}: {told}" for name, told in wrong.items())


async def _outcome(scene: Scene, case: Case) -> list[str]:
    """What is not as the case has it, each in words."""
    task = await scene.ended(case.name, WITHIN_S)
    status = task["status"]
    replies = [r["spec"]["reply"] for r in await scene.turns(task) if r["spec"]["kind"] == "Turn"]
    conditions = {c["type"]: c for c in status["conditions"]}
    first = replies[0] if replies else {}
    pairs = {
        "phase": (status["phase"], case.phase),
        "reason": (conditions["Finished"]["reason"], case.reason),
        "verdicts": (tuple(reply["verdict"] for reply in replies), case.verdicts),
        "attempt": (first.get("attempt", 1), case.attempt),
        "lost requests": (status.get("lostRequests", 0), case.lost),
        "endpoint": (first.get("endpoint", case.name), case.by or case.name),
    }
    wrong = [
        f"{what} is {got!r}, not {want!r}" for what, (got, want) in pairs.items() if got != want
    ]
    if case.told not in first.get("note", ""):
        wrong.append(f"the model was told {first.get('note')!r}, not {case.told!r}")
    return wrong


async def test_an_endpoint_that_is_away_is_waited_for_and_says_so_once(
    scene: Scene, operator: OperatorProcess
) -> None:
    """As when the model's pod is made anew: nobody listens, then it is back."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    await scene.defaults(url, breaker={"failures": 3, "openSeconds": 2})
    for number in range(5):
        await scene.start(f"waits-{number}", goal="Case away.")
    condition = await _until_reason(scene, "waits-0", "ModelUnreachable", "ModelRetrying")
    assert "127.0.0.1" in condition["message"], condition
    await asyncio.sleep(8)  # the outage itself: tries and breaker go on meanwhile
    script = Script.model_validate({"conversations": [{"name": "away", "turns": [GOOD]}]})
    async with FakeSGLang(script, port=port):
        tasks = [await scene.ended(f"waits-{number}", WITHIN_S) for number in range(5)]
    assert {task["status"]["phase"] for task in tasks} == {"Succeeded"}
    told = [line for line in operator.log.read_text().splitlines() if '"AskFailed"' in line]
    assert len(told) <= 5 * 4, f"{len(told)} lines of failed requests"


async def _until_reason(scene: Scene, task: str, *reasons: str) -> dict[str, Any]:
    """Wait until the task's Ready condition has one of these reasons."""
    async with asyncio.timeout(60):
        while True:
            status = (await scene.kubectl.get("agenttask", task)).get("status", {})
            for condition in status.get("conditions", ()):
                if condition["type"] == "Ready" and condition["reason"] in reasons:
                    return dict(condition)
            await asyncio.sleep(0.2)
