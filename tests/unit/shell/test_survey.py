"""What the watch did not tell is found by a list of all tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from ratchet.edges.kube import ApiError, ApiUnreachable, Params
from ratchet.fakes.clock import run
from ratchet.shell.survey import Survey

from tests.unit.shell.test_supervisor import Scene


def listed(*uids: str) -> dict[str, Any]:
    return {"items": [{"metadata": {"namespace": "work", "name": u, "uid": u}} for u in uids]}


@dataclass
class Lists:
    """An API server that answers lists, one after another."""

    answers: list[dict[str, Any] | Exception]
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Params | None = None,
        content_type: str = "",
        timeout_s: float = 0,
    ) -> dict[str, Any]:
        assert method == "GET"
        self.asked.append((path, (params or {}).get("continue")))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def looked(lists: Lists, namespaces: tuple[str, ...] = (), times: int = 1) -> frozenset[str]:
    """The tasks that a supervisor knows after so many looks."""

    async def story() -> frozenset[str]:
        scene = Scene()
        scene.lead.held = False  # no loops: what is known is asked for
        survey = Survey(lists, namespaces, scene.supervisor, every_s=60)
        work = asyncio.create_task(survey.run())
        await asyncio.sleep(60 * times + 1)
        work.cancel()
        return scene.supervisor.known

    found: frozenset[str] = run(story())
    return found


def test_a_task_of_which_no_event_came_is_found() -> None:
    assert looked(Lists([listed("a", "b")])) == {"a", "b"}


def test_a_task_that_is_gone_without_an_event_is_forgotten() -> None:
    assert looked(Lists([listed("a", "b"), listed("b")]), times=2) == {"b"}


def test_all_pages_are_read_before_anything_is_forgotten() -> None:
    first = listed("a") | {"metadata": {"continue": "more"}}
    lists = Lists([listed("a", "b"), first, listed("b")])
    assert looked(lists, times=2) == {"a", "b"}
    assert [token for _, token in lists.asked] == [None, None, "more"]


@pytest.mark.parametrize("failure", [ApiUnreachable("away"), ApiError(500, "", "broken")])
def test_a_list_that_fails_forgets_nothing_and_is_tried_again(failure: Exception) -> None:
    assert looked(Lists([listed("a"), failure]), times=2) == {"a"}
    assert looked(Lists([listed("a"), failure, listed("b")]), times=3) == {"b"}


@pytest.mark.parametrize(
    ("namespaces", "paths"),
    [
        ((), ["/apis/ratchet.run/v1alpha1/agenttasks"]),
        (
            ("one", "two"),
            [
                "/apis/ratchet.run/v1alpha1/namespaces/one/agenttasks",
                "/apis/ratchet.run/v1alpha1/namespaces/two/agenttasks",
            ],
        ),
    ],
)
def test_it_looks_where_the_operator_watches(
    namespaces: tuple[str, ...], paths: Sequence[str]
) -> None:
    lists = Lists([listed("a"), listed("b")])
    looked(lists, namespaces)
    assert [path for path, _ in lists.asked] == paths
