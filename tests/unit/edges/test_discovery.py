"""An operator does not start without its kinds, and waits for an API server that is away."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.edges.discovery import NEEDED, NotServed, expect_kinds
from ratchet.edges.kube import JSON, TIMEOUT_S, ApiError, ApiUnreachable, Params

NOT_FOUND = ApiError(404, "NotFound", "the server could not find the requested resource")


class Discovery:
    """An API server that says this, one after another."""

    def __init__(self, *answers: set[str] | Exception) -> None:
        self.answers = list(answers)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        assert (method, path) == ("GET", "/apis/ratchet.run/v1alpha1")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"kind": "APIResourceList", "resources": [{"name": name} for name in answer]}


async def test_with_all_kinds_it_goes_on() -> None:
    api = Discovery(set(NEEDED) | {"agenttasks/status"})
    await expect_kinds(api, api.sleep)
    assert not api.slept


@pytest.mark.parametrize("served", [set(NEEDED) - {"agentturns"}, NOT_FOUND])
async def test_a_kind_that_is_missing_is_named_with_what_to_do(
    served: set[str] | Exception,
) -> None:
    api = Discovery(served)
    with pytest.raises(NotServed, match=r"agentturns.* install the chart ratchet-crds"):
        await expect_kinds(api, api.sleep)


@pytest.mark.parametrize(
    "away", [ApiUnreachable("refused"), ApiError(503, "ServiceUnavailable", "starting")]
)
async def test_an_api_server_that_is_away_is_waited_for(away: Exception) -> None:
    api = Discovery(away, away, set(NEEDED))
    await expect_kinds(api, api.sleep)
    assert len(api.slept) == 2
