"""What the operator has its sandboxes try to reach."""

from __future__ import annotations

import pytest
from ratchet.shell.settings import SettingsError, read_settings
from ratchet.shell.targets import is_target, known_to_listen

KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
IMAGES = {"RATCHET_SERVER_IMAGE": "s", "RATCHET_RUNNER_IMAGE": "r"}


def test_in_a_pod_they_are_the_api_server_and_the_pod_itself() -> None:
    assert known_to_listen(KUBERNETES, "10.88.0.7", 8080) == ("10.96.0.1:443", "10.88.0.7:8080")


def test_addresses_of_ipv6_get_brackets() -> None:
    there = {**KUBERNETES, "KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert known_to_listen(there, "fd00:1::7", 8080) == ("[fd00::1]:443", "[fd00:1::7]:8080")


def test_what_does_not_listen_or_has_a_name_is_none() -> None:
    assert known_to_listen({}, "", 8080) == ()
    assert known_to_listen(KUBERNETES, "10.88.0.7", 0) == ("10.96.0.1:443",)
    named = {**KUBERNETES, "KUBERNETES_SERVICE_HOST": "api.example.com"}
    assert known_to_listen(named, "10.88.0.7", 8080) == ("10.88.0.7:8080",)


def test_settings_name_others() -> None:
    settings = read_settings({**IMAGES, "RATCHET_PROBE_TARGETS": "10.0.0.1:443, [fd00::1]:6443"})
    assert settings.probe_targets == ("10.0.0.1:443", "[fd00::1]:6443")
    assert read_settings(IMAGES).probe_targets == ()


@pytest.mark.parametrize("text", ["kubernetes:443", "10.0.0.1", "10.0.0.1:0", "fd00::1:443x", ":1"])
def test_what_is_no_address_and_port_is_refused_at_the_start(text: str) -> None:
    assert not is_target(text)
    with pytest.raises(SettingsError, match=r"RATCHET_PROBE_TARGETS.*no address and port"):
        read_settings({**IMAGES, "RATCHET_PROBE_TARGETS": text})
