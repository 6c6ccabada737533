"""Slots give every checkout its own place on the machine."""

from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest

from tests.cluster import ClusterError
from tests.cluster.local import slots
from tests.cluster.local.slots import Slot


def test_a_checkout_keeps_the_slot_it_has() -> None:
    assert slots.choose({0: "/a", 3: "/b"}, "/b", []) == Slot(3)


def test_a_new_checkout_takes_the_first_free_slot() -> None:
    assert slots.choose({0: "/a", 2: "/c"}, "/b", []) == Slot(1)


def test_a_slot_is_passed_over_when_the_machine_has_a_route_into_it() -> None:
    assert slots.choose({}, "/a", [IPv4Network("10.200.7.0/24")]) == Slot(1)


def test_the_broad_route_of_a_vpn_blocks_nothing() -> None:
    assert slots.choose({}, "/a", [IPv4Network("10.0.0.0/8")]) == Slot(0)


def test_a_full_machine_says_how_to_make_room() -> None:
    taken = {number: f"/{number}" for number in range(slots.SLOTS)}
    with pytest.raises(ClusterError, match="cluster-down"):
        slots.choose(taken, "/new", [])


def test_no_two_slots_share_an_address() -> None:
    networks = [Slot(number).network for number in range(slots.SLOTS)]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))


def test_link_pods_and_services_of_a_slot_lie_apart_inside_it() -> None:
    slot = Slot(5)
    parts = [IPv4Network((slot.network.network_address, 30)), slot.pods, slot.services]
    assert all(part.subnet_of(slot.network) for part in parts)
    assert not any(one.overlaps(other) for one, other in combinations(parts, 2))
    assert {slot.host_ip, slot.node_ip} == set(parts[0].hosts())
    assert slot.dns_ip in slot.services
    assert slot.apiserver_service_ip == next(slot.services.hosts())


def test_names_fit_into_an_interface_name() -> None:
    assert all(len(Slot(number).interface) <= 15 for number in range(slots.SLOTS))


def test_slots_of_deleted_checkouts_are_abandoned(tmp_path: Path) -> None:
    assert slots.abandoned({0: str(tmp_path), 1: str(tmp_path / "gone")}) == (1,)


def test_only_networks_are_read_from_the_routes() -> None:
    listing = '[{"dst": "default"}, {"dst": "192.0.2.0/24"}, {"dst": "10.1.2.3", "type": "local"}]'
    assert slots.parse_routes(listing) == (IPv4Network("192.0.2.0/24"), IPv4Network("10.1.2.3/32"))


def test_the_registry_gives_back_what_was_saved(tmp_path: Path) -> None:
    registry = tmp_path / "slots.json"
    assert slots.read(registry) == {}
    slots.save(registry, {1: "/a", 10: "/b"})
    assert slots.read(registry) == {1: "/a", 10: "/b"}
