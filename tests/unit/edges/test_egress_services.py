"""What the cluster says of egress rules: Services with their pods, and whether hosts can be opened."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.core.config import EgressPort, EgressRule
from ratchet.edges.egress import EgressUnfit, ServiceMissing, read_egress
from ratchet.edges.kube import JSON, TIMEOUT_S, ApiError, ApiUnreachable, Params
from ratchet.ports import JournalAway

SERVICE = "/api/v1/namespaces/data/services/db"
OWN = "/api/v1/namespaces/team-a/services/db"
CILIUM = "/apis/cilium.io/v2"
HOST = EgressRule((EgressPort(443),), host="pypi.org")


class Served:
    """An API server that has these objects, or fails like this."""

    def __init__(self, objects: dict[str, Any] | None = None) -> None:
        self.objects = objects or {}
        self.asked: list[str] = []

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
        self.asked.append(f"{method} {path}")
        found = self.objects.get(path, ApiError(404, "NotFound", "not found"))
        if isinstance(found, Exception):
            raise found
        stored: dict[str, Any] = found
        return stored


def service(*ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"selector": {"app": "postgres"}, "ports": ports, **spec}}


def to(*ports: int, namespace: str = "data") -> EgressRule:
    return EgressRule(tuple(map(EgressPort, ports)), service="db", namespace=namespace)


async def read(api: Served, *rules: EgressRule) -> Any:
    return await read_egress(api, "team-a", rules)


async def test_the_selector_of_a_service_is_read() -> None:
    api = Served({SERVICE: service({"port": 5432})})
    egress = await read(api, to(5432), to(5433))
    assert egress.services == {("data", "db"): {"app": "postgres"}}
    assert api.asked == [f"GET {SERVICE}"]


async def test_a_service_without_a_namespace_is_one_of_the_tasks() -> None:
    egress = await read(Served({OWN: service({"port": 80})}), to(80, namespace=""))
    assert egress.services == {("", "db"): {"app": "postgres"}}


async def test_nothing_is_asked_where_networks_alone_are_opened() -> None:
    api = Served()
    await read(api, EgressRule((EgressPort(443),), cidr="10.0.0.0/8"))
    assert not api.asked


async def test_a_missing_service_is_one_that_may_come() -> None:
    with pytest.raises(ServiceMissing, match="no Service 'db' in namespace 'data'; create it"):
        await read(Served(), to(80))


@pytest.mark.parametrize(
    "body",
    [
        {"spec": {"ports": [{"port": 80}]}},
        {"spec": {"selector": {}, "ports": [{"port": 80}]}},
        service({"port": 80}, type="ExternalName"),
    ],
)
async def test_a_service_that_selects_no_pods_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(EgressUnfit, match=r"has no selector.*use cidr"):
        await read(Served({SERVICE: body}), to(80))


async def test_a_port_that_is_only_the_services_is_refused_since_it_would_open_nothing() -> None:
    mapped = Served({SERVICE: service({"port": 80, "targetPort": 8080})})
    with pytest.raises(EgressUnfit, match=r"80 is a port of Service 'db'.*\(8080/TCP\)"):
        await read(mapped, to(80))
    await read(mapped, to(8080), to(9090))


async def test_a_port_that_has_a_name_in_the_pods_is_left_to_them() -> None:
    await read(Served({SERVICE: service({"port": 80, "targetPort": "http"})}), to(80))


async def test_a_service_that_may_not_be_read_is_said_to_be_so() -> None:
    forbidden = ApiError(403, "Forbidden", "no")
    with pytest.raises(EgressUnfit, match="may not read Service 'db' of namespace 'data'"):
        await read(Served({SERVICE: forbidden}), to(80))


@pytest.mark.parametrize("failure", [ApiUnreachable("silence"), ApiError(500, "x", "y")])
async def test_an_api_server_that_is_away_is_the_journals_error(failure: Exception) -> None:
    with pytest.raises(JournalAway):
        await read(Served({SERVICE: failure}), to(80))
    with pytest.raises(JournalAway):
        await read(Served({CILIUM: failure}), HOST)


async def test_hosts_are_refused_where_there_is_no_cilium() -> None:
    with pytest.raises(EgressUnfit, match=r"'pypi\.org' needs Cilium"):
        await read(Served(), HOST)
    with pytest.raises(EgressUnfit, match="needs Cilium"):
        await read(Served({CILIUM: {"resources": [{"name": "ciliumnodes"}]}}), HOST)


async def test_hosts_are_taken_where_cilium_serves_its_policy() -> None:
    api = Served({CILIUM: {"resources": [{"name": "ciliumnetworkpolicies"}]}})
    assert (await read(api, HOST)).hosts == (HOST,)


async def test_a_rule_that_cannot_be_meant_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ValueError, match="never gets there"):
        await read(Served(), EgressRule((EgressPort(80),), cidr="169.254.169.254/32"))
