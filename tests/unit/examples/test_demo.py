"""What the demo decides before it touches a cluster."""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

import pytest
from ratchet.api.endpoint import ModelEndpoint

from examples.demo import (
    EXAMPLE,
    DemoFailed,
    Kubectl,
    RealModel,
    localised,
    model_of,
    refuse_loopback,
)
from tests.cluster import Cluster
from tools.install import environment

CLUSTER = Cluster(
    "local", "here", "/k/config", "", "/bin-folder", "https://10.0.0.1:6443", "10.0.0.2"
)
GIVEN = Cluster("given", "far", "/k/config", "registry.example.com/x", "/bin-folder", "https://k")


def options(url: str = "", model: str = "", key_file: Path | None = None) -> argparse.Namespace:
    return argparse.Namespace(model_url=url, model=model, key_file=key_file)


def test_without_a_url_the_script_is_played() -> None:
    assert model_of(options()) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (options(model="m"), "MODEL_URL"),
        (options("http://m/v1"), "MODEL is missing"),
        (options("http://m/v1", "m", Path("/nowhere/key")), "is no file"),
    ],
)
def test_half_an_endpoint_is_refused_with_a_sentence(given: argparse.Namespace, says: str) -> None:
    with pytest.raises(DemoFailed, match=says):
        model_of(given)


def test_a_real_endpoint_comes_with_its_key_in_a_secret(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-test\n")
    real = model_of(options("https://models.example.com/v1/", "m", key))
    assert real is not None
    items = real.manifests()["items"]
    assert isinstance(items, list)
    secret, endpoint = items
    assert base64.b64decode(secret["data"]["key"]) == b"sk-test"
    spec = ModelEndpoint.model_validate(endpoint).spec
    assert spec.url == "https://models.example.com/v1"
    assert spec.api_key_secret_ref is not None
    assert spec.api_key_secret_ref.name == secret["metadata"]["name"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_the_machines_own_loopback_is_refused_and_the_right_address_named(host: str) -> None:
    with pytest.raises(DemoFailed, match=r"10\.0\.0\.2:PORT"):
        refuse_loopback(RealModel(f"http://{host}:30000/v1", "m", None), CLUSTER)


def test_images_are_taken_from_where_the_cluster_has_them() -> None:
    sandbox = EXAMPLE / "sandbox-class.yaml"
    assert "image: localhost/ratchet-demo-shell:dev" in localised(sandbox, CLUSTER)
    assert "image: registry.example.com/x/ratchet-demo-shell:dev" in localised(sandbox, GIVEN)


def test_kubectl_and_helm_are_told_the_cluster_and_never_take_a_current_one() -> None:
    argv = Kubectl(CLUSTER).argv("get", "pods")
    assert argv[0] == "/bin-folder/kubectl"
    assert argv[1:3] == ["--context", "here"]
    variables = environment(CLUSTER)
    assert variables["KUBECONFIG"] == "/k/config"
    assert variables["HELM_KUBECONTEXT"] == "here"
