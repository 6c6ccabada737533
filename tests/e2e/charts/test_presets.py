"""What `make presets` does, for each preset: the real API server takes all that the chart makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import Cluster
from tools import presets
from tools.presets import PRESETS, Api, Preset, PresetError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


@pytest.fixture
def api(cluster: Cluster) -> Api:
    return Api(cluster)


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """One that the dry runs may name."""
    with api.namespace() as name:
        yield name


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_the_api_server_takes_every_object_of_the_preset(
    preset: Preset, api: Api, namespace: str
) -> None:
    assert "objects pass the API server" in presets.check(
        preset, presets.find_helm(), api, namespace
    )


def test_a_field_that_the_api_does_not_have_is_refused(api: Api, namespace: str) -> None:
    endpoint = {
        "apiVersion": "ratchet.run/v1alpha1",
        "kind": "ModelEndpoint",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"url": "http://m/v1", "model": "m", "speed": "high"},
    }
    with pytest.raises(PresetError, match="speed"):
        api.try_out([endpoint])


def test_a_dry_run_stores_nothing(api: Api, namespace: str) -> None:
    found = presets.render(presets.find_helm(), PRESETS[-1], namespace, namespace)
    api.try_out(presets.sort_out(found, []).known)
    assert api.kubectl("get", "modelendpoints", "--namespace", namespace, "-o", "name") == ""
