"""Secrets and ConfigMaps that endpoints name."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ratchet.edges.kube import ApiError, ApiUnreachable
from ratchet.edges.secrets import KeyReader
from ratchet.ports import PortError


class Answers:
    """An API server that says one thing, and notes what it was asked for."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer
        self.asked = ""

    async def request(self, method: str, path: str, *args: Any, **more: Any) -> dict[str, Any]:
        self.asked = f"{method} {path}"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_the_texts_of_a_secret_are_read_and_what_is_no_text_is_left_out() -> None:
    api = Answers({"data": {"token": coded(b"s3cret\n"), "odd": coded(b"\xff\xfe")}})
    assert await KeyReader(api).secret("space", "keys") == {"token": "s3cret\n"}
    assert api.asked == "GET /api/v1/namespaces/space/secrets/keys"


async def test_the_texts_of_a_config_map_are_read() -> None:
    api = Answers({"data": {"ca.crt": "PEM"}, "binaryData": {"x": "AA=="}})
    assert await KeyReader(api).config_map("space", "ca") == {"ca.crt": "PEM"}
    assert api.asked == "GET /api/v1/namespaces/space/configmaps/ca"


async def test_an_empty_object_has_no_texts() -> None:
    assert await KeyReader(Answers({})).secret("space", "keys") == {}
    assert await KeyReader(Answers({})).config_map("space", "ca") == {}


async def test_what_does_not_exist_is_a_lookup_error_that_says_to_create_it() -> None:
    reader = KeyReader(Answers(ApiError(404, "NotFound", "no")))
    with pytest.raises(LookupError, match="there is no Secret space/keys: create it"):
        await reader.secret("space", "keys")
    with pytest.raises(LookupError, match="there is no ConfigMap space/ca: create it"):
        await reader.config_map("space", "ca")


@pytest.mark.parametrize(
    "failure", [ApiError(403, "Forbidden", "no"), ApiError(500, "x", "y"), ApiUnreachable("away")]
)
async def test_what_may_pass_is_a_port_error(failure: Exception) -> None:
    with pytest.raises(PortError, match="Secret space/keys cannot be read"):
        await KeyReader(Answers(failure)).secret("space", "keys")
