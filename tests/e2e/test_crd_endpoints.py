"""Model endpoints on a real API server: what it takes, what it refuses, and what it shows."""

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from ratchet.api import names
from ratchet.api.crd import openapi_schema
from ratchet.api.endpoint import RESERVED_HEADERS, ModelEndpoint

from tests.e2e.crd_server import Kube, said, unique, with_crds

pytestmark = pytest.mark.cluster

PLURAL = names.ENDPOINT_PLURAL
BARE: dict[str, Any] = {"url": "http://sglang:30000/v1", "model": "m"}
FULL: dict[str, Any] = {
    "url": "https://models.example.org:8443/v1",
    "model": "org/name",
    "engine": "SGLang",
    "apiKeySecretRef": {"name": "s", "key": "k"},
    "caConfigMapRef": {"name": "ca", "key": "ca.crt"},
    "headers": [{"name": "X-Team", "value": "a b"}, {"name": "X-Other", "value": "c"}],
    "contextWindow": 131_072,
    "vision": True,
    "capacity": {"requests": 8, "tokens": 400_000},
    "price": {
        "inputPerMillion": "0.4",
        "cachedInputPerMillion": "0.04",
        "outputPerMillion": "2",
    },
    "retry": {"attempts": 4, "backoffSeconds": {"first": 1, "most": 30}},
    "timeouts": {"connectSeconds": 3, "firstByteSeconds": 600, "totalSeconds": 900},
    "breaker": {"failures": 3, "openSeconds": 10},
    "allowedNamespaces": ["team-a", "*"],
}


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    with with_crds() as server:
        yield server


def refused(kube: Kube, **parts: Any) -> str:
    """What the API server says to an endpoint with these fields, which it must refuse."""
    spec = {key: value for key, value in {**BARE, **parts}.items() if value is not None}
    with pytest.raises(ApiException) as refusal:
        kube.create(PLURAL, "one", spec, dry_run="All", field_validation="Strict")
    return said(refusal.value)


def taken(kube: Kube, **parts: Any) -> None:
    spec = {**BARE, **parts}
    found = kube.create(PLURAL, "one", spec, dry_run="All", field_validation="Strict")
    assert found["spec"] == spec


def test_the_list_of_this_file_covers_every_field() -> None:
    assert set(openapi_schema(ModelEndpoint)["properties"]["spec"]["properties"]) == set(FULL)


def test_an_endpoint_with_every_field_is_taken_and_each_can_be_edited(kube: Kube) -> None:
    name = unique("endpoint")
    found = kube.create(PLURAL, name, FULL, field_validation="Strict")
    assert found["spec"] == FULL
    assert found["status"] == {"observedGeneration": -1}
    for field in FULL.keys() - BARE.keys():
        kube.patch(PLURAL, name, {"spec": {field: None}})
    assert (
        kube.patch(PLURAL, name, {"spec": {**FULL, "model": "other"}})["spec"]["model"] == "other"
    )


@pytest.mark.parametrize(
    "url",
    ["http://sglang:30000/v1", "https://h", "http://10.0.0.7/v1/", "http://[fd00::7]:30000/v1"],
)
def test_the_address_of_a_server_is_taken(kube: Kube, url: str) -> None:
    taken(kube, url=url)


@pytest.mark.parametrize(
    "url",
    [
        "sglang:30000/v1",
        "ftp://h/v1",
        "http:///v1",
        "http://:80/v1",
        "http://u:p@h/v1",
        "http://h/v1?key=1",
        "http://h/v1#a",
        "http://h:port/v1",
        "http://h:123456/v1",
        "http://a b/v1",
    ],
)
def test_what_is_no_address_is_refused_by_its_field(kube: Kube, url: str) -> None:
    assert "spec.url" in refused(kube, url=url)


@pytest.mark.parametrize("url", ["http://h:0/v1", "http://h:65536/v1", "http://h:99999"])
def test_a_port_that_no_server_has_is_refused_with_an_example(kube: Kube, url: str) -> None:
    answer = refused(kube, url=url)
    assert "spec.url" in answer and "write it like http://sglang.models:30000/v1" in answer


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"model": None}, "spec.model: Required"),
        ({"model": ""}, "spec.model"),
        ({"engine": "vLLM"}, 'supported values: \\"SGLang\\"'),
        ({"hearing": True}, 'unknown field \\"spec.hearing\\"'),
        ({"vision": "yes"}, "spec.vision"),
        ({"contextWindow": 100}, "greater than or equal to 1024"),
        ({"apiKeySecretRef": {"name": "s"}}, "spec.apiKeySecretRef.key: Required"),
        ({"caConfigMapRef": {"key": "k"}}, "spec.caConfigMapRef.name: Required"),
        ({"capacity": {"requests": 0}}, "greater than or equal to 1"),
        ({"capacity": {"requests": 10_001}}, "less than or equal to 10000"),
        ({"capacity": {"tokens": 1023}}, "greater than or equal to 1024"),
        ({"retry": {"attempts": 0}}, "greater than or equal to 1"),
        ({"retry": {"attempts": 11}}, "less than or equal to 10"),
        ({"retry": {"backoffSeconds": {"first": 0}}}, "greater than or equal to 1"),
        ({"retry": {"backoffSeconds": {"first": 61}}}, "lower first or raise most"),
        ({"retry": {"backoffSeconds": {"first": 9, "most": 8}}}, "lower first or raise most"),
        ({"timeouts": {"connectSeconds": 0}}, "greater than or equal to 1"),
        ({"timeouts": {"firstByteSeconds": 601}}, "lower the one or raise the other"),
        (
            {"timeouts": {"firstByteSeconds": 31, "totalSeconds": 30}},
            "lower the one or raise the other",
        ),
        ({"breaker": {"failures": 0}}, "greater than or equal to 1"),
        ({"breaker": {"failures": 101}}, "less than or equal to 100"),
        ({"breaker": {"openSeconds": 601}}, "less than or equal to 600"),
        ({"allowedNamespaces": ["team-*"]}, "spec.allowedNamespaces[0]"),
        ({"allowedNamespaces": ["a", "a"]}, "Duplicate value"),
        ({"allowedNamespaces": [f"n{number}" for number in range(257)]}, "at most 256 items"),
        ({"fallbacks": [{"name": "a"}]}, 'unknown field \\"spec.fallbacks\\"'),
    ],
)
def test_a_field_that_does_not_fit_is_refused(
    kube: Kube, parts: dict[str, Any], sentence: str
) -> None:
    assert sentence in refused(kube, **parts)


@pytest.mark.parametrize("amount", ["-1", "-0.01", "1e3", "1,5", ".5", "NaN", "", 0.5])
@pytest.mark.parametrize("field", ["inputPerMillion", "cachedInputPerMillion", "outputPerMillion"])
def test_a_price_is_an_exact_number_that_is_not_negative(
    kube: Kube, field: str, amount: object
) -> None:
    price = {"inputPerMillion": "1", "outputPerMillion": "1", field: amount}
    assert f"spec.price.{field}" in refused(kube, price=price)


def test_a_price_is_whole_and_may_be_nothing(kube: Kube) -> None:
    taken(kube, price={"inputPerMillion": "0", "outputPerMillion": "0.000000001"})
    assert "outputPerMillion: Required" in refused(kube, price={"inputPerMillion": "1"})
    assert "inputPerMillion: Required" in refused(kube, price={"outputPerMillion": "1"})


@pytest.mark.parametrize("name", [*RESERVED_HEADERS, "Authorization", "HOST", "Content-Length"])
def test_a_header_of_the_operators_own_is_refused(kube: Kube, name: str) -> None:
    answer = refused(kube, headers=[{"name": name, "value": "x"}])
    assert "spec.headers[0].name" in answer and "take it out" in answer


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ([{"name": "X A", "value": "1"}], "spec.headers[0].name"),
        ([{"name": "X-A"}], "spec.headers[0].value: Required"),
        ([{"name": "X-A", "value": ""}], "spec.headers[0].value"),
        ([{"name": "X-A", "value": "a\r\nX-B: b"}], "spec.headers[0].value"),
        ([{"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}], "Duplicate value"),
        ([{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}], "has a name twice"),
        ([{"name": f"X-{n}", "value": "1"} for n in range(17)], "must have at most 16 items"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    kube: Kube, headers: list[dict[str, str]], sentence: str
) -> None:
    assert sentence in refused(kube, headers=headers)


def test_a_wrong_edit_is_refused_and_the_endpoint_stays_as_it_was(kube: Kube) -> None:
    name = unique("endpoint")
    kube.create(PLURAL, name, FULL)
    for edit, sentence in (
        ({"url": "http://h:0/v1"}, "write it like"),
        ({"timeouts": {"totalSeconds": 10}}, "lower the one or raise the other"),
        ({"price": {"inputPerMillion": "-1"}}, "spec.price.inputPerMillion"),
    ):
        assert sentence in kube.refuse(PLURAL, name, {"spec": edit})
    assert kube.patch(PLURAL, name, {"spec": {}})["spec"] == FULL


STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05.678901Z",
            "reason": "Unreachable",
            "message": "It does not answer.",
        },
        {
            "type": "Saturated",
            "status": "Unknown",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "NotAsked",
        },
    ],
    "running": 3,
    "queued": 12,
    "latency": {"p50Seconds": 2.25, "p95Seconds": 8},
    "cacheHitPercent": 87,
    "lastError": {"message": "It answered 500.", "time": "2026-01-02T03:04:05Z"},
}


def test_status_is_written_beside_the_spec_and_has_columns(kube: Kube) -> None:
    name = unique("endpoint")
    kube.create(PLURAL, name, FULL)
    written = kube.patch(PLURAL, name, {"status": STATUS, "spec": BARE}, status=True)
    assert written["status"] == STATUS and written["spec"] == FULL
    assert written["metadata"]["generation"] == 1
    header, row = kube.kubectl("get", PLURAL, name).splitlines()
    assert header.split() == ["NAME", "MODEL", "URL", "READY", "RUNNING", "QUEUED", "AGE"]
    assert row.split()[:6] == [name, FULL["model"], FULL["url"], "False", "3", "12"]
    header, row = kube.kubectl("get", PLURAL, name, "-o", "wide").splitlines()
    assert header.split()[7:] == ["ENGINE", "LATENCY", "CACHE", "REASON"]
    assert row.split()[7:] == ["SGLang", "2.25", "87", "Unreachable"]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ({"cacheHitPercent": 101}, "less than or equal to 100"),
        ({"running": -1}, "greater than or equal to 0"),
        ({"latency": {"p50Seconds": 1}}, "p95Seconds: Required"),
        (
            {"conditions": [{**STATUS["conditions"][0], "type": "Happy"}]},
            'supported values: \\"Ready\\"',
        ),
    ],
)
def test_a_status_that_does_not_fit_is_refused(
    kube: Kube, status: dict[str, Any], sentence: str
) -> None:
    name = kube.create(PLURAL, unique("endpoint"), BARE)["metadata"]["name"]
    assert sentence in kube.refuse(PLURAL, name, {"status": status}, status=True)
