"""What is wrong with an endpoint by itself, said as the API server says it."""

from typing import Any

import pytest
from pydantic import ValidationError
from ratchet.api.crd import openapi_schema
from ratchet.api.endpoint import RESERVED_HEADERS, ModelEndpoint, ModelEndpointSpec
from ratchet.api.endpointproblems import endpoint_problems

BARE = {"url": "http://sglang:30000/v1", "model": "m"}


def problems(**parts: Any) -> tuple[str, ...]:
    return endpoint_problems(ModelEndpointSpec.model_validate({**BARE, **parts}))


@pytest.mark.parametrize(
    "url",
    [
        "http://sglang.models:30000/v1",
        "https://models.example.org/v1",
        "https://10.0.0.7:8443/v1/",
        "http://[fd00::7]:30000/v1",
        "http://[fd00::7]/v1",
        "http://h:65535",
    ],
)
def test_the_address_of_a_server_is_no_problem(url: str) -> None:
    assert problems(url=url) == ()


@pytest.mark.parametrize("url", ["http://h:0/v1", "http://h:65536/v1", "http://[:]/v1"])
def test_what_only_looks_like_an_address_is_one(url: str) -> None:
    (sentence,) = problems(url=url)
    assert sentence.startswith("spec.url: url is not the address of a server: write it like")


@pytest.mark.parametrize(
    "url",
    [
        "sglang:30000/v1",
        "ftp://h/v1",
        "http://",
        "http:///v1",
        "http://:80/v1",
        "http://u:p@h/v1",
        "http://h/v1?key=1",
        "http://h/v1#a",
        "http://h:port/v1",
        "http://h:123456/v1",
        "http://h /v1",
        "http://[nothing]/v1",
    ],
)
def test_what_is_no_address_at_all_is_refused_by_its_pattern(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        problems(url=url)


@pytest.mark.parametrize("name", [*RESERVED_HEADERS, "AUTHORIZATION", "Host", "Content-Length"])
def test_a_header_of_the_operators_own_is_a_problem(name: str) -> None:
    (sentence,) = problems(headers=[{"name": name, "value": "x"}])
    assert "operator's own" in sentence and "take it out" in sentence


def test_a_header_comes_once_in_whatever_case() -> None:
    assert problems(headers=[{"name": "X-A", "value": "1"}, {"name": "X-B", "value": "1"}]) == ()
    (sentence,) = problems(headers=[{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}])
    assert "twice" in sentence


@pytest.mark.parametrize(
    "header",
    [
        {"name": "X A", "value": "1"},
        {"name": "X-A:", "value": "1"},
        {"name": "", "value": "1"},
        {"name": "X-A", "value": "a\r\nX-B: b"},
        {"name": "X-A", "value": " 1"},
        {"name": "X-A", "value": "ä"},
        {"name": "X-A", "value": ""},
    ],
)
def test_a_header_that_http_does_not_know_is_refused_by_its_pattern(header: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="headers"):
        problems(headers=[header])


@pytest.mark.parametrize(
    ("timeouts", "fit"),
    [
        ({"firstByteSeconds": 600}, True),
        ({"firstByteSeconds": 601}, False),
        ({"firstByteSeconds": 601, "totalSeconds": 900}, True),
        ({"firstByteSeconds": 31, "totalSeconds": 30}, False),
        ({"totalSeconds": 30}, True),
    ],
)
def test_the_first_byte_comes_before_the_last(timeouts: dict[str, int], fit: bool) -> None:
    assert (problems(timeouts=timeouts) == ()) is fit


@pytest.mark.parametrize(
    ("pauses", "fit"),
    [
        ({"first": 60}, True),
        ({"first": 61}, False),
        ({"first": 61, "most": 61}, True),
        ({"first": 2, "most": 1}, False),
        ({"most": 1}, True),
    ],
)
def test_the_first_pause_is_not_the_longest(pauses: dict[str, int], fit: bool) -> None:
    assert (problems(retry={"backoffSeconds": pauses}) == ()) is fit


@pytest.mark.parametrize("amount", ["0", "0.15", "12", "999999999.999999999"])
def test_an_amount_is_an_exact_decimal_number(amount: str) -> None:
    assert problems(price={"inputPerMillion": amount, "outputPerMillion": amount}) == ()


@pytest.mark.parametrize(
    "amount", ["-1", "-0.1", "", "1e3", "1,5", ".5", "1.", "01", "NaN", "inf", 1]
)
def test_an_amount_is_not_negative_and_no_float(amount: str) -> None:
    with pytest.raises(ValidationError, match="price"):
        problems(price={"inputPerMillion": amount, "outputPerMillion": "1"})


def test_every_rule_of_the_schema_of_an_endpoint_is_asked_here_too() -> None:
    said = {rule["message"] for rule in rules(openapi_schema(ModelEndpoint)["properties"]["spec"])}
    found = problems(
        url="http://h:0",
        headers=[{"name": "host", "value": "1"}, {"name": "Host", "value": "1"}],
        timeouts={"firstByteSeconds": 700},
        retry={"backoffSeconds": {"first": 100}},
    )
    assert {sentence.partition(": ")[2].removesuffix(".") for sentence in found} == said


def rules(schema: dict[str, Any]) -> list[dict[str, str]]:
    below = [
        *schema.get("properties", {}).values(),
        *([schema["items"]] if "items" in schema else []),
    ]
    return [
        *schema.get("x-kubernetes-validations", ()),
        *(r for child in below for r in rules(child)),
    ]
