"""Keys of model endpoints out of Secrets."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ratchet.edges.kube import ApiError, ApiUnreachable
from ratchet.edges.secrets import KeyReader
from ratchet.ports import PortError


class Answers:
    """An API server that says one thing."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer

    async def request(self, method: str, path: str, *args: Any, **more: Any) -> dict[str, Any]:
        assert (method, path) == ("GET", "/api/v1/namespaces/space/secrets/keys")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def read(answer: dict[str, Any] | Exception) -> str:
    return await KeyReader(Answers(answer))("space", "keys", "token")


def secret(data: bytes) -> dict[str, Any]:
    return {"data": {"token": base64.b64encode(data).decode()}}


async def test_a_key_is_read_without_the_newline_that_editors_add() -> None:
    assert await read(secret(b"s3cret\n")) == "s3cret"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ApiError(404, "NotFound", "no"), "create it with the key 'token'"),
        ({"data": {"other": "eA=="}}, "has no key 'token'"),
        ({}, "has no key 'token'"),
        (secret(b"\xff\xfe"), "is not text"),
    ],
)
async def test_what_a_person_must_mend_is_a_lookup_error(
    answer: dict[str, Any] | Exception, says: str
) -> None:
    with pytest.raises(LookupError, match=says):
        await read(answer)


@pytest.mark.parametrize(
    "failure", [ApiError(403, "Forbidden", "no"), ApiError(500, "x", "y"), ApiUnreachable("away")]
)
async def test_what_may_pass_is_a_port_error(failure: Exception) -> None:
    with pytest.raises(PortError, match="Secret space/keys cannot be read"):
        await read(failure)
